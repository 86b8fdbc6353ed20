"""The steps of the watch."""

from __future__ import annotations

from handlers.phases import armed, watch
from handlers.phases.looking import Looker
from handlers.phases.watch import Look, Window
from handlers.release.phase import Conclusion, Release
from tasks.policy import LOOK, step
from tasks.tools import tools


@step(LOOK)
async def begin(run: Release, looker: Looker) -> Window:
    """The watch window, with its progress from the ledger."""
    async with tools(run) as core:
        return await watch.begin(core, run, looker)


@step(LOOK)
async def look(run: Release, window: Window, looker: Looker) -> Look:
    """Judge the live traffic for one interval. Where a revision was deployed, look at its way back too."""
    async with tools(run) as core:
        looked = await watch.look(core, run, window, looker)
        if run.from_revision != run.to_revision:
            await armed.check(core, run)
        return looked


@step(LOOK)
async def conclude(run: Release, window: Window, looker: Looker) -> Conclusion:
    """Judge the whole window after it has passed."""
    async with tools(run) as core:
        return await watch.conclude(core, run, window, looker)
