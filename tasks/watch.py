"""The steps of the watch."""

from __future__ import annotations

import math

from handlers.phases import armed, watch
from handlers.phases.looker import Looker
from handlers.phases.watch import Look, Window
from handlers.release.phase import Conclusion, Release
from tasks import page
from tasks.policy import LOOK, step
from tasks.tools import tools


@step(LOOK, "Begin the watch")
async def begin(run: Release, looker: Looker) -> Window:
    """The watch window, with its progress from the ledger."""
    async with tools(run) as core:
        return await watch.begin(core, run, looker)


@step(LOOK, "Look at live traffic")
async def look(run: Release, window: Window, looker: Looker) -> Look:
    """Judge the live traffic for one interval. Where a revision was deployed, look at its way back too."""
    async with tools(run) as core:
        looked = await watch.look(core, run, window, looker)
        if run.from_revision != run.to_revision:
            await armed.check(core, run)
        number = math.ceil(looked.window.watched_seconds / looked.window.interval_seconds)
        page.call_it(f"Look {number}: {looked.conclusion.sentence}")
        return looked


@step(LOOK, "Judge the whole watch")
async def conclude(run: Release, window: Window, looker: Looker) -> Conclusion:
    """Judge the whole window after it has passed."""
    async with tools(run) as core:
        return await watch.conclude(core, run, window, looker)
