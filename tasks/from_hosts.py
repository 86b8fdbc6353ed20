"""The steps of a rollback without the database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from handlers.core import open_core
from handlers.host.way_back import HostReturn
from handlers.notify.tell import send_without_ledger
from handlers.phases import from_hosts
from handlers.phases.from_hosts import Target
from handlers.release.phase import Release
from handlers.release.settings import without_ledger
from tasks.policy import CHANGE, LOOK, ONCE, step
from tasks.tools import tools


@step(LOOK, "Read how long hosts are tried")
async def keep_trying_seconds(environment: str, target: Target) -> float:
    """How long a host that is not back is tried again."""
    return (await without_ledger(environment, target.release)).deploy.keep_trying_seconds


@step(CHANGE, "Take {before.host} back")
async def try_host(environment: str, target: Target, before: HostReturn, journal: Path) -> HostReturn:
    """One try to bring a host back; its operations go to a file."""
    async with open_core(await without_ledger(environment, target.release)) as core:
        return await from_hosts.try_host(core, target, before, journal)


@step(LOOK, "Ask which hosts went back without the ledger")
async def taken_back(run: Release) -> str:
    """Which hosts went back while the ledger was away; an empty string when none did."""
    async with tools(run) as core:
        return await from_hosts.taken_back(core, run)


@step(ONCE, "Tell people of the rollback")
async def tell(environment: str, target: Target, hosts: Sequence[HostReturn], reason: str) -> None:
    """Tell people how it ended, without the ledger. What cannot be sent is in the journal."""
    settings = await without_ledger(environment, target.release)
    await send_without_ledger(settings, from_hosts.message_about(settings.name, target, hosts, reason))
