"""The canary: prove the revision on exactly one dead letter, through the deployed workers."""

from __future__ import annotations

from handlers.release.phase import Conclusion, Release
from tasks import canary


async def prove(run: Release) -> Conclusion:
    """Choose one dead letter, redrive it, follow it until it settles, and compare its row with the payload."""
    chosen = await canary.choose(run)
    if chosen.conclusion is not None:
        return chosen.conclusion
    sent = await canary.send(run, chosen)
    return await canary.follow(run, sent)
