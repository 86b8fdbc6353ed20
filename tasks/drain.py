"""The steps of the drain."""

from __future__ import annotations

from handlers.phases import drain
from handlers.release.phase import Conclusion, Release
from tasks.policy import CHANGE, LOOK, step
from tasks.tools import tools


@step(CHANGE)
async def next_batch(run: Release) -> int | None:
    """Redrive the next batch and return its number; None when no planned dead letter is left."""
    async with tools(run) as core:
        return await drain.next_batch(core, run)


@step(LOOK)
async def settle(run: Release, number: int) -> Conclusion:
    """Wait for the batch to settle, and judge the drain so far."""
    async with tools(run) as core:
        return await drain.settle(core, run, number)


@step(LOOK)
async def conclude(run: Release) -> Conclusion:
    """The conclusion of the whole drain."""
    async with tools(run) as core:
        return await drain.conclude(core, run)
