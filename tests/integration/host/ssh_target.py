"""Hosts for tests: real SSH, real git and a service manager, in a temporary folder."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlers.environment.load import parse
from handlers.environment.model import Environment, Host
from handlers.host.ssh import Shell
from rehearsal.hosts import systemctl
from rehearsal.hosts.sshd import Sshd


@dataclass
class Target:
    """Hosts with a repository each, cloned from one origin, and the environment that names them."""

    folder: Path
    origin: Path
    hosts: dict[str, Path]
    servers: dict[str, Sshd]
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def environment(self, **changes: dict[str, Any]) -> Environment:
        """The environment, with keys of its sections replaced: `environment(ssh={"user": "x"})`."""
        first = next(iter(self.servers.values()))
        values: dict[str, Any] = {
            "name": "test",
            "database": {"url": "postgresql://nobody@127.0.0.1:1/none"},
            "ssh": {
                "user": first.user,
                "key_file": str(first.key_file),
                "known_hosts_file": str(self.folder / "known_hosts"),
                "connect_seconds": 10,
                "command_seconds": 20,
                "operation_seconds": 30,
            },
            "hosts": [
                {
                    "name": name,
                    "address": "127.0.0.1",
                    "port": server.port,
                    "health_url": "http://127.0.0.1:1/health",
                }
                for name, server in self.servers.items()
            ],
            "deploy": {"directory": "~/erp it's", "state_directory": "~/state dir"},
            "services": {"command": ["systemctl"], "web": ["tsh-erp"], "workers": ["tsh-erp-workers"]},
        }
        for section, keys in (self.changed | changes).items():
            values[section] = {**values.get(section, {}), **keys}
        return parse(values, source="test")

    def tree(self, host: str = "web-1") -> Path:
        """The checkout that the units of a host run from."""
        return self.hosts[host] / "erp it's"

    def state(self, host: str = "web-1") -> Path:
        """The state directory of a host."""
        return self.hosts[host] / "state dir"

    def git(self, *words: str, at: Path | None = None) -> str:
        """Run one git command; by default in the repository in which the tests commit."""
        return git(*words, at=at or self.folder / "workshop")

    def commit(self, text: str, *, files: dict[str, str] | None = None, branch: str = "main") -> str:
        """Commit and push something; the new commit id."""
        workshop = self.folder / "workshop"
        self.git("checkout", "-q", "-B", branch)
        for name, content in (files or {"app.txt": text}).items():
            (workshop / name).parent.mkdir(parents=True, exist_ok=True)
            (workshop / name).write_text(content)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", text)
        self.git("push", "-q", "origin", f"HEAD:{branch}")
        return self.git("rev-parse", "HEAD")

    def head(self, host: str = "web-1") -> str:
        """The current commit of a host's checkout, from git."""
        return self.git("rev-parse", "HEAD", at=self.tree(host))


@asynccontextmanager
async def serve(folder: Path, *names: str, kind: Any = None) -> AsyncIterator[Target]:
    """Start the hosts, and stop them with their units at the end."""
    origin = folder / "origin.git"
    git("init", "-q", "--bare", "-b", "main", str(origin), at=folder)
    git("clone", "-q", str(origin), "workshop", at=folder)
    target = Target(folder=folder, origin=origin, hosts={}, servers={})
    target.commit("first", files={"app.txt": "first", "keep/a.txt": "a", ".gitignore": "*.log\n"})
    try:
        for name in names or ("web-1",):
            home = folder / name
            home.mkdir()
            target.hosts[name] = home
            git("clone", "-q", str(origin), "erp it's", at=home)
            systemctl.install(home)
            environment = {
                "HOME": str(home),
                "PATH": f"{home}/bin:/usr/local/bin:/usr/bin:/bin",
                "GIT_CONFIG_NOSYSTEM": "1",
                # By it the run of the tests finds whatever was detached on a host.
                "TMPDIR": tempfile.gettempdir(),
            }
            target.servers[name] = await Sshd.start(
                folder=folder / f"{name}-sshd",
                home=home,
                key_file=folder / "client_key",
                environment=environment,
                kind=kind,
            )
        lines = [server.known_hosts_line for server in target.servers.values()]
        (folder / "known_hosts").write_text("".join(lines))
        yield target
    finally:
        for name, server in target.servers.items():
            units = [file.stem for file in (target.hosts[name] / "units").glob("*.service")]
            if units:
                stop = [str(target.hosts[name] / "bin/systemctl"), "stop", *units]
                await asyncio.to_thread(subprocess.run, stop, check=False, capture_output=True)
            server.stop()


@asynccontextmanager
async def open_host(environment: Environment, host: Host) -> AsyncIterator[Shell]:
    """A connection to one host, closed at the end."""
    shell = Shell(environment, host)
    try:
        await shell.connect()
        yield shell
    finally:
        shell.close()


CLOSED_PORT = 1
"""A port without a listener: only root may use it, and it is never assigned as a free port."""


class Relay:
    """A TCP proxy to a host that can cut connections, or drop the data."""

    def __init__(self, target: Target, name: str = "web-1") -> None:
        self._to = target.servers[name].port
        self._known_hosts = target.folder / "known_hosts"
        self._key = target.servers[name].known_hosts_line.split(maxsplit=1)[1]
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.open = True

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._carry_both, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        with self._known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{self.port} {self._key}")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Close every connection through it."""
        for writer in self._writers:
            writer.transport.abort()

    async def _carry_both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if not self.open:
            writer.transport.abort()
            return
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers.add(onward_writer)
        await asyncio.gather(self._carry(reader, onward_writer), self._carry(onward_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


def unit(host: Path, name: str, start: str, *, stop_seconds: float = 5, pause: float = 0.2) -> None:
    """Write a unit file that runs *start*, is killed *stop_seconds* after SIGTERM, and restarts after *pause*."""
    (host / "units" / f"{name}.service").write_text(
        f"[Service]\nExecStart={start}\nRestart=on-failure\nRestartSec={pause}\nTimeoutStopSec={stop_seconds}\n"
    )


def git(*words: str, at: Path) -> str:
    """One git command with a fixed identity; its output."""
    identity = {
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@t",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@t",
    }
    done = subprocess.run(
        ["git", *words], cwd=at, check=True, capture_output=True, text=True, env={**os.environ, **identity}
    )
    return done.stdout.strip()
