"""The step that restarts the workers by hand."""

from __future__ import annotations

from handlers.core import open_core
from handlers.environment.last_good import last_good
from handlers.phases import restart_workers
from handlers.phases.restart_workers import HostRestart
from handlers.release.phase import Release
from tasks.policy import CHANGE, step


@step(CHANGE, "Restart workers")
async def restart(
    environment: str, run: Release, hosts: tuple[str, ...], by: str, reason: str
) -> list[HostRestart]:
    """Restart the workers of these hosts while the lock is ours."""
    # The hosts and units as the file names them now: the release under which it is recorded has ended.
    async with open_core(await last_good(environment)) as core:
        return await restart_workers.restart(core, run, hosts, by=by, reason=reason)
