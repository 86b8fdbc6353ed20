"""Two hosts with running units, and changes of them that are recorded in memory."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlers.environment.model import Host
from handlers.host.health import FleetHealth
from handlers.host.ssh import Shell, open_hosts
from handlers.host.step import HostChange
from handlers.release.phase import Verdict
from tests.integration.host.ssh_target import Target, serve, unit

UNITS = ("tsh-erp", "tsh-erp-workers")


@dataclass
class Notes:
    """A recorder that keeps all records in order."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    async def intend(self, operation_id: str, host: str, kind: str, command: str) -> None:
        """Keep the intention."""
        self.lines.append(("intend", operation_id))
        self.commands.append(command)

    async def confirm(self, operation_id: str, outcome: str, exit_status: int | None, output: str) -> None:
        """Keep the outcome."""
        self.lines.append((str(outcome), operation_id))

    def intended(self) -> list[str]:
        """The recorded intentions in order, without the release's id."""
        return [line.removeprefix("r1-") for word, line in self.lines if word == "intend"]


@asynccontextmanager
async def hosts_with_units(folder: Path) -> AsyncIterator[Target]:
    """Two hosts with units that run."""
    async with serve(folder, "web-1", "web-2") as target:
        for home in target.hosts.values():
            for name in UNITS:
                unit(home, name, "/bin/sleep 1000")
            await manage(home, "start", *UNITS)
        yield target


@asynccontextmanager
async def shells_of(target: Target, **changes: dict[str, Any]) -> AsyncIterator[list[Shell]]:
    """Connections to the hosts."""
    async with open_hosts(target.environment(**changes)) as shells:
        yield shells


def change(revision: str, notes: Notes | None = None, **values: Any) -> HostChange:
    """A change of release r1."""
    return HostChange(
        **{"release": "r1", "token": 1, "revision": revision, "recorder": notes or Notes()} | values
    )


async def manage(home: Path, *words: str) -> str:
    """Call the host's service manager directly."""
    done = await asyncio.to_thread(
        subprocess.run, [str(home / "bin/systemctl"), *words], check=False, capture_output=True, text=True
    )
    return done.stdout.strip()


async def pid(target: Target, host: str = "web-1", name: str = "tsh-erp") -> str:
    """The main process of a unit, 0 when there is none."""
    return await manage(target.hosts[host], "show", name, "-p", "MainPID", "--value")


async def always_healthy(_hosts: Sequence[Host]) -> FleetHealth:
    """A probe that always passes."""
    return FleetHealth(verdict=Verdict.PASS, sentence="healthy")


def deploy_keys(**keys: Any) -> dict[str, dict[str, Any]]:
    """The deploy section with further keys."""
    return {"deploy": {"directory": "~/erp it's", "state_directory": "~/state dir", **keys}}
