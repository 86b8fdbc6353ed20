"""The canary: prove the revision on exactly one dead letter, through the deployed workers."""

from __future__ import annotations

from flows.upstream import unless_away, until_upstream_answers
from handlers.release.phase import Conclusion, Release
from tasks import canary


async def prove(run: Release) -> Conclusion:
    """Choose one dead letter, redrive it, follow it until it settles, and compare its row with the payload."""
    if (held := await until_upstream_answers(run)) is not None:
        return held
    chosen = await canary.choose(run)
    if chosen.conclusion is not None:
        return chosen.conclusion
    sent = await canary.send(run, chosen)
    return await unless_away(run, await canary.follow(run, sent))
