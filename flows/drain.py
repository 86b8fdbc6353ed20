"""The drain: redrive the other dead letters, one of each type first, then in growing batches.

The gate judges after each batch.
"""

from __future__ import annotations

from flows.upstream import unless_away, until_upstream_answers
from handlers.release.phase import Conclusion, Release, Verdict
from tasks import drain


async def drain_all(run: Release) -> Conclusion:
    """Drain exactly the planned dead letters; stop at the first batch that fails the gate.

    Each batch takes at least one event, so the loop ends after at most as many batches as there are events. It
    pauses while the upstream is away.
    """
    while True:
        if (held := await until_upstream_answers(run)) is not None:
            return held
        if (batch := await drain.next_batch(run)) is None:
            return await unless_away(run, await drain.conclude(run))
        conclusion = await drain.settle(run, batch)
        if conclusion.verdict is Verdict.FAIL:
            return await unless_away(run, conclusion)
