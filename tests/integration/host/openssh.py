"""OpenSSH servers for tests, with host keys and settings of the test's choice."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlers.environment.load import parse
from handlers.environment.model import Environment
from rehearsal.hosts.sshd import find_sshd, user_name
from rehearsal.postgres import free_port

_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile {folder}/authorized_keys
ForceCommand {folder}/session
"""


@dataclass
class Server:
    """A running sshd with its folder, port and process."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    def known(self, kind: str = "ed25519", name: str = "") -> str:
        """The line of a known hosts file for one of its keys."""
        key = (self.folder / f"host_{kind}.pub").read_text().split()
        return f"{name or f'[127.0.0.1]:{self.port}'} {key[0]} {key[1]}\n"

    def allow(self, *keys: Path, options: str = "") -> None:
        """Let in these keys only (the public halves of key files)."""
        lines = [f"{options} {Path(f'{key}.pub').read_text()}".strip() for key in keys]
        (self.folder / "authorized_keys").write_text("\n".join(lines) + "\n")


def keygen(*words: str | Path) -> None:
    """Run ssh-keygen quietly."""
    subprocess.run(
        ["ssh-keygen", "-q", *map(str, words)], check=True, capture_output=True, stdin=subprocess.DEVNULL
    )


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "", form: str = "") -> Path:
    """A key pair of OpenSSH, in another form where asked (PEM, PKCS8)."""
    words = ["-m", form] if form else []
    size = ["-b", "2048"] if kind == "rsa" else []
    keygen("-t", kind, *size, "-N", passphrase, "-f", path, *words)
    return path


@contextmanager
def server(
    folder: Path, *kinds: str, settings: str = "", prepare: Callable[[Path], None] | None = None
) -> Iterator[Server]:
    """An sshd with host keys of *kinds*, in this order, and more *settings*; nobody is let in yet.

    *prepare* may do something in its folder when the host keys are there.
    """
    folder.mkdir(parents=True)
    lines = []
    for kind in kinds or ("ed25519",):
        make_key(folder / f"host_{kind}", kind)
        lines.append(f"HostKey {folder}/host_{kind}")
    if prepare is not None:
        prepare(folder)
    session = folder / "session"
    session.write_text('#!/bin/sh\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n')
    session.chmod(0o755)
    port = free_port()
    config = folder / "sshd_config"
    # The first value of a setting counts.
    config.write_text(
        "\n".join([settings.format(folder=folder), *lines]) + _CONFIG.format(port=port, folder=folder)
    )
    sshd = find_sshd()
    assert sshd
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sshd, "-f", config, "-D", "-e"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(os.environ),
        )
    try:
        _wait(port, process, folder / "log")
        yield Server(folder=folder, port=port, process=process)
    finally:
        process.terminate()
        process.wait(10)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(log.read_text())


@dataclass
class Client:
    """What the controller has: a key, and a known hosts file."""

    folder: Path
    key: Path
    known: Path = field(init=False)

    def __post_init__(self) -> None:
        self.known = self.folder / "known_hosts"

    def environment(
        self, *hosts: Server, ssh: dict[str, Any] | None = None, host: dict[str, Any] | None = None
    ) -> Environment:
        """An environment with these hosts; the keys of [ssh] and of each host can be replaced (None removes one)."""
        section = {
            "user": user_name(),
            "key_file": str(self.key),
            "known_hosts_file": str(self.known),
            "connect_seconds": 5,
            "command_seconds": 20,
            **(ssh or {}),
        }
        values = {
            "name": "test",
            "database": {"url": "postgresql://nobody@127.0.0.1:1/none"},
            "ssh": {key: value for key, value in section.items() if value is not None},
            "hosts": [
                {
                    "name": f"web-{number}",
                    "address": "127.0.0.1",
                    "port": server.port,
                    "health_url": "http://127.0.0.1:1/health",
                    **(host or {}),
                }
                for number, server in enumerate(hosts, 1)
            ],
            "deploy": {"directory": "/none"},
            "services": {},
        }
        return parse(values, source="test")
