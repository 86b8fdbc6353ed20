"""The steps of the drain."""

from __future__ import annotations

from handlers.phases import drain
from handlers.release.phase import Conclusion, Release
from tasks import page
from tasks.policy import CHANGE, LOOK, step
from tasks.tools import tools


@step(CHANGE, "Redrive the next batch")
async def next_batch(run: Release) -> int | None:
    """Redrive the next batch and return its number; None when no planned dead letter is left."""
    async with tools(run) as core:
        number = await drain.next_batch(core, run)
        page.call_it(
            "Redrive: no planned dead letter is left" if number is None else f"Redrive batch {number}"
        )
        return number


@step(LOOK, "Batch {number}: wait until it settles")
async def settle(run: Release, number: int) -> Conclusion:
    """Wait for the batch to settle, and judge the drain so far."""
    async with tools(run) as core:
        conclusion = await drain.settle(core, run, number)
        page.call_it(f"Batch {number}: {conclusion.sentence}")
        return conclusion


@step(LOOK, "Judge the whole drain")
async def conclude(run: Release) -> Conclusion:
    """The conclusion of the whole drain."""
    async with tools(run) as core:
        return await drain.conclude(core, run)
