"""Secrets that a test plants in a target, each recognisable wherever it might turn up."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from rehearsal.hosts.host import RehearsalHost
from rehearsal.postgres import free_port

VARIABLE = "TDS_REHEARSAL_SENTINELS"
"""When it is set, a rehearsal plants sentinels."""
MARK = "SENTINEL"
"""Every sentinel begins with it."""
_ORIGIN = re.compile(r'^(\[remote "origin"\]\n\s*url = ).*$', re.MULTILINE)
"""The address of the origin in a repository's configuration."""
_SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port={port}, bind='127.0.0.1')"


def wanted() -> bool:
    """Whether the rehearsal of this process plants sentinels."""
    return bool(os.environ.get(VARIABLE))


def make(what: str) -> str:
    """A new secret about *what*."""
    return f"{MARK}-{what}-{secrets.token_hex(8)}"


@dataclass(frozen=True, kw_only=True)
class Remote:
    """The origin behind HTTP, whose address contains a password."""

    process: subprocess.Popen[bytes]
    url: str

    @classmethod
    def serve(cls, origin: Path) -> Remote:
        """Serve the bare repository *origin*."""
        subprocess.run(["git", "-C", str(origin), "update-server-info"], check=True, capture_output=True)
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SERVE.format(port=port)],
            cwd=origin,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return cls(process=process, url=f"http://deploy:{make('remote')}@127.0.0.1:{port}/")

    def stop(self) -> None:
        """End the server."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)


def lock_key(key: Path) -> None:
    """Encrypt a private key with a passphrase, which is then in the file `passphrase` beside it."""
    passphrase = make("passphrase")
    write_secret(key.with_name("passphrase"), passphrase)
    key.write_bytes(asyncssh.read_private_key(str(key)).export_private_key(passphrase=passphrase))


def write_secret(path: Path, secret: str) -> None:
    """Write *secret* into a file that only we may read."""
    path.touch(mode=0o600)
    path.write_text(secret, encoding="utf-8")


def plant(host: RehearsalHost, remote: Remote, database_password: str) -> None:
    """Put secrets where a host has them: in its units' environment, its remote's address, and a hook's reach."""
    with (host.folder / "erp.env").open("a", encoding="utf-8") as file:
        file.write(f"ERP_API_TOKEN={make('unit')}\n")
    write_secret(host.folder / "hook-secret", database_password)
    config = host.repository / ".git" / "config"
    # Not by `git remote set-url`: its command line would be in the process list.
    changed, number = _ORIGIN.subn(rf"\1{remote.url}", config.read_text("utf-8"))
    if number != 1:
        raise RuntimeError(
            f"{config} has {number} addresses of an origin, not one: no secret was planted in it"
        )
    config.write_text(changed, "utf-8")


HOOK = 'printf "connecting with %s\\\\n" "$(cat "$HOME/hook-secret")"'
"""A hook that prints a secret of the environment, as a careless migration does."""
