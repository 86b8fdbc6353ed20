"""One host of a rehearsal: a folder of its own with SSH, a service manager and the sample ERP in it."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rehearsal import erp, ports, processes
from rehearsal.hosts import disk, sshd, systemctl
from rehearsal.hosts.sshd import Kind, Sshd
from rehearsal.pace import Pace
from rehearsal.running import in_thread

WEB_UNIT = "tsh-erp"
WORKERS_UNIT = "tsh-erp-workers"
UNITS = (WEB_UNIT, WORKERS_UNIT)
DIRECTORY = "erp"
Strategy = Literal["checkout", "releases"]
"""How a revision gets onto the host: `deploy.strategy` of the environment file."""

_PROJECT = Path(__file__).resolve().parents[2]
_UNIT = """[Unit]
Description={description}

[Service]
ExecStart={python} {checkout}/{script}
WorkingDirectory={checkout}
EnvironmentFile={environment_file}
Environment=PYTHONPATH={project} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ERP_PORT={port} ERP_HOST={name}
Environment=ERP_CUES={cues} ERP_BACKOFF_SECONDS={pace.backoff_seconds}
Environment=ERP_BACKOFF_CAP_SECONDS={pace.backoff_cap_seconds} ERP_WAIT_SECONDS={pace.wait_seconds}
Restart=always
RestartSec=200ms
TimeoutStopSec=15
"""
_RUNBOOK = "import sys; sys.path.insert(0, sys.argv.pop(1)); from flows.cli import main; main()"
"""The command line of this very project, whether it is installed or run from its folder."""


class HostError(RuntimeError):
    """The host did not come up; says why."""


@dataclass(kw_only=True)
class RehearsalHost:
    """A host: how it is reached, and where on this machine its parts lie."""

    name: str
    folder: Path
    http_port: int
    reserved: socket.socket = field(repr=False)
    """Keeps the port of the web process for it, however often that starts."""
    strategy: Strategy = "checkout"
    environment: dict[str, str]
    """What every command on this host finds in its environment."""
    server: Sshd | None = None
    published: tuple[int, int] | None = None
    """The ports of SSH and of the web process on the controller's side of the host's cable."""

    @classmethod
    def make(
        cls,
        name: str,
        folder: Path,
        *,
        rehearsal_id: str,
        small_disk: bool = False,
        strategy: Strategy = "checkout",
    ) -> RehearsalHost:
        """Lay the host out: service manager, `runbook`, git settings, home. Nothing runs yet.

        With *small_disk* its folder is a file system of its own, which can be filled.
        """
        folder.mkdir(parents=True)
        if small_disk:
            disk.mount(folder)
        systemctl.install(folder)
        (folder / "tmp").mkdir()
        script = folder / "bin" / "runbook"
        words = [sys.executable, "-P", "-c", _RUNBOOK, str(_PROJECT)]
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        # Without a name git asks the network for one, and waits.
        (folder / ".gitconfig").write_text(
            "[user]\n\tname = deploy\n\temail = deploy@example.com\n[safe]\n\tdirectory = *\n"
        )
        git = Path(shutil.which("git") or "/usr/bin/git").parent
        environment = {
            "PATH": f"{folder / 'bin'}:{git}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "LANG": "C.UTF-8",
            "SHELL": "/bin/sh",
            "GIT_CONFIG_NOSYSTEM": "1",
            processes.MARKER: rehearsal_id,
        }
        reserved = ports.reserve()
        return cls(
            name=name,
            folder=folder,
            http_port=reserved.getsockname()[1],
            reserved=reserved,
            strategy=strategy,
            environment=environment,
        )

    @property
    def directory(self) -> Path:
        """The directory that the deploys change: `deploy.directory` of the environment file."""
        return self.folder / DIRECTORY

    @property
    def checkout(self) -> Path:
        """The folder that the units run from: a git checkout, or the link to a release's folder."""
        return self.directory if self.strategy == "checkout" else self.directory / "current"

    @property
    def repository(self) -> Path:
        """The git repository of the host."""
        return self.directory if self.strategy == "checkout" else self.directory / "repository"

    @property
    def health_url(self) -> str:
        """The host's health address, as the controller reaches it."""
        return f"http://127.0.0.1:{self.published[1] if self.published else self.http_port}/health"

    @property
    def ssh_port(self) -> int:
        """The port of the host's SSH server, as the controller reaches it."""
        return self.published[0] if self.published else self.door.port

    @property
    def known_hosts_line(self) -> str:
        """The line for the controller's known_hosts file."""
        _, kind, key = self.door.known_hosts_line.split()
        return f"[127.0.0.1]:{self.ssh_port} {kind} {key}\n"

    @property
    def door(self) -> Sshd:
        """The host's SSH server."""
        if self.server is None:
            raise HostError(f"{self.name} has no SSH server yet")
        return self.server

    def install_erp(
        self,
        origin: Path,
        revision: str,
        *,
        database_url: str,
        idle: bool = False,
        pace: Pace | None = None,
        cues: Path | None = None,
    ) -> None:
        """Clone the ERP, stand on *revision* and write the two units and their secrets.

        *pace* says how patient its workers are, and *cues* is where they see what happens in the world. *idle*
        workers take no events: a large fleet does not need twenty full ones on one machine.
        """
        if self.strategy == "checkout":
            erp.clone(origin, self.directory, revision)
        else:
            erp.export(origin, self.directory, revision)
        secrets = self.folder / "erp.env"
        secrets.touch(mode=0o600)
        secrets.write_text(f"ERP_DATABASE_URL={database_url}\n", encoding="utf-8")
        for unit, script, description in (
            (WEB_UNIT, "web.py", "ERP web process"),
            (WORKERS_UNIT, "idle.py" if idle else "workers.py", "ERP sync workers"),
        ):
            text = _UNIT.format(
                description=description,
                python=sys.executable,
                checkout=self.checkout,
                script=script,
                environment_file=secrets,
                project=_PROJECT,
                port=self.http_port,
                name=self.name,
                pace=pace or Pace(),
                cues=cues or self.folder / "cues",
            )
            (self.folder / "units" / f"{unit}.service").write_text(text, encoding="utf-8")

    async def open_door(self, *, key_file: Path, kind: Kind | None, tied: bool) -> None:
        """Start the SSH server."""

        def start() -> None:
            # Noted in the thread that starts it: when we are cancelled meanwhile, it still gets stopped.
            self.server = sshd.start(
                folder=self.folder / "ssh",
                home=self.folder,
                key_file=key_file,
                environment=self.environment,
                kind=kind,
                tied=tied,
            )

        await in_thread(start)

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Ask the host's service manager directly, without SSH."""
        return subprocess.run(
            [str(self.folder / "bin" / "systemctl"), *words],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            cwd=self.folder,
        )

    def start_units(self) -> None:
        """Start web and workers."""
        for unit in UNITS:
            done = self.systemctl("start", unit)
            if done.returncode:
                raise HostError(f"{self.name}: {done.stderr.strip()}")

    def log_end(self) -> str:
        """The last lines of both units' logs."""
        parts = []
        for unit in UNITS:
            log = self.folder / "log" / f"{unit}.log"
            if log.exists():
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                parts.append(f"{unit}: {' | '.join(lines[-5:])}")
        return "; ".join(parts)

    def close_door(self) -> None:
        """End the SSH server, if it runs, and give the web process's port back."""
        if self.server is not None:
            self.server.stop()
        self.reserved.close()
