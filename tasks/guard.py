"""The step of the guard: take the checks of one release that are due."""

from __future__ import annotations

from handlers.core import Core
from handlers.phases import guard
from handlers.phases.guard import Taken
from handlers.release.phase import Release
from handlers.report import gather
from tasks.policy import ONCE, step
from tasks.tools import tools


@step(ONCE, "Take the checks of {run.id} that are due")
async def take(run: Release) -> Taken | None:
    """Take what is due. It stays due where that fails: who comes the next minute tries again."""
    async with tools(run) as core:
        return await guard.take(core, run, write_report)


async def write_report(core: Core, run: Release) -> str:
    """Write the report of the release anew, and say where it is."""
    paths = await gather.write(core, run)
    return f"the report of the whole guard: {paths['html']}"
