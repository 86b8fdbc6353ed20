"""The start of a release: what has not started may have to wait, or be refused; what was held goes on."""

from __future__ import annotations

from handlers.errors import LockLost, Refused
from handlers.release.phase import Conclusion, Phase, Release, Verdict
from tasks import ledger, plan


async def begin(run: Release, because: str) -> Release:
    """Enter the first phase of the work. A release that has not started yet is refused when the world has moved."""
    match run.phase:
        case Phase.HELD:
            return await ledger.resume(run, because)
        case Phase.ROLLBACK_FAILED:
            # Only the first cause: with each try's own reason the sentence would grow at every one.
            cause = await ledger.rollback_cause(run)
            sentence = f"{because}; the rollback was started because {cause}"
            conclusion = Conclusion(verdict=Verdict.FAIL, sentence=sentence)
            return await ledger.enter(run, Phase.ROLLING_BACK, conclusion)
        case Phase.PLANNED | Phase.APPROVED if drift := await plan.find_drift(run):
            return await refuse(run, drift)
    if run.phase is Phase.APPROVED and (expired := await plan.why_waiting(run)):
        return await refuse(run, expired)
    if run.phase is Phase.PLANNED:
        await raise_if_waiting(run)
        run = await ledger.enter(run, Phase.APPROVED, sentence=await plan.summary(run))
    if run.phase is Phase.APPROVED:
        approved = await plan.approvals(run) or "this environment asks for none"
        try:
            run = await ledger.enter(
                run, Phase.DEPLOYING, sentence=f"{approved}; lock taken, token {run.token}"
            )
        except LockLost:
            raise
        except Refused as error:
            # An approved release that stayed in the ledger would be taken for the one to resume.
            await refuse(run, f"another release has the environment: {error}")
            raise
    return run


async def raise_if_waiting(run: Release) -> None:
    """Raise Refused when the release waits for approval. It stays in the ledger, and holds nothing."""
    if why := await plan.why_waiting(run):
        raise Refused(why)


async def refuse(run: Release, sentence: str) -> Release:
    """End a release that has not started, with the reason."""
    return await ledger.enter(run, Phase.REFUSED, Conclusion(verdict=Verdict.FAIL, sentence=sentence))
