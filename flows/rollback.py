"""The rollback: a deploy of the previous revision, with the evidence saved first and proof afterwards."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from flows.ending import as_state, work
from handlers.errors import Fenced, LockLost, RunbookError
from handlers.release.phase import Conclusion, Phase, Release, Verdict
from tasks import ledger, report
from tasks import rollback as back
from tasks.lock import held


@flow(name="rollback", flow_run_name="rollback-{environment}")
async def rollback(
    environment: str, reason: str, requested_by: str = "prefect", take_over: str = ""
) -> State[None]:
    """Take the newest release of an environment back to the revision before it.

    Args:
        environment: name of the environment file
        reason: why, in one sentence
        requested_by: who asks for it
        take_over: the reason for taking the environment from a controller that still lives
    """
    with work():
        run = await by_hand(environment, reason=reason, requested_by=requested_by, take_over=take_over)
    return as_state(run)


async def by_hand(environment: str, *, reason: str, requested_by: str, take_over: str = "") -> Release:
    """Roll back the live, held or newest finished release; refuses when there is nothing to go back to."""
    run = await back.candidate(environment)
    async with held(run, take_over=take_over) as run:
        if run.phase is not Phase.ROLLING_BACK:
            wish = Conclusion(
                verdict=Verdict.FAIL, sentence=f"rollback asked for by {requested_by}: {reason}"
            )
            run = await ledger.enter(run, Phase.ROLLING_BACK, wish)
        run = await undo(run)
        await report.write(run)
    return run


async def undo(run: Release) -> Release:
    """Save the evidence, put back what was not drained, activate the previous revision everywhere, and prove it."""
    why = run.reason
    saved = await back.save_evidence(run)
    try:
        activated = await back.activate(run)
        conclusion = await back.conclude(run, activated, why, saved)
    except RunbookError as error:
        # A host that obeys somebody else cannot tell our ledger how this ends; another holder of our lock can.
        if isinstance(error, LockLost) and not isinstance(error, Fenced):
            raise
        conclusion = Conclusion(
            verdict=Verdict.FAIL, sentence=f"rollback broke off: {error}; began because {why}"
        )
    if conclusion.verdict is Verdict.PASS:
        return await ledger.enter(run, Phase.ROLLED_BACK, conclusion)
    return await ledger.enter(run, Phase.ROLLBACK_FAILED, conclusion)
