"""The drain: the other dead letters, one of each type first, then growing batches with a verdict after each."""

from __future__ import annotations

from handlers.release.phase import Conclusion, Release, Verdict
from tasks import drain


async def drain_all(run: Release) -> Conclusion:
    """Drain exactly the planned dead letters, and stop before the next batch when the gate says no.

    Each batch takes at least one event, so the loop ends after at most as many batches as there are events.
    """
    while (batch := await drain.next_batch(run)) is not None:
        judged = await drain.settle(run, batch)
        if judged.verdict is Verdict.FAIL:
            return judged
    return await drain.conclude(run)
