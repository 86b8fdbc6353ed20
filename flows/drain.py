"""The drain: redrive the other dead letters, one of each type first, then in growing batches.

The gate judges after each batch.
"""

from __future__ import annotations

from handlers.release.phase import Conclusion, Release, Verdict
from tasks import drain


async def drain_all(run: Release) -> Conclusion:
    """Drain exactly the planned dead letters; stop at the first batch that fails the gate.

    Each batch takes at least one event, so the loop ends after at most as many batches as there are events.
    """
    while (batch := await drain.next_batch(run)) is not None:
        conclusion = await drain.settle(run, batch)
        if conclusion.verdict is Verdict.FAIL:
            return conclusion
    return await drain.conclude(run)
