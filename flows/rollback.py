"""The rollback: save the evidence, deploy the previous revision on every host, and probe it."""

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
    """Roll the newest release of an environment back to the previous revision.

    Args:
        environment: name of the environment file
        reason: why, in one sentence
        requested_by: name of the person who requests it
        take_over: the reason for taking the lock from a live controller
    """
    with work():
        run = await roll_back(environment, reason=reason, requested_by=requested_by, take_over=take_over)
    return as_state(run)


async def roll_back(environment: str, *, reason: str, requested_by: str, take_over: str = "") -> Release:
    """Roll back the live, held or newest finished release. Raises Refused when there is none to roll back."""
    run = await back.candidate(environment)
    async with held(run, take_over=take_over) as run:
        if run.phase is not Phase.ROLLING_BACK:
            request = Conclusion(
                verdict=Verdict.FAIL, sentence=f"rollback requested by {requested_by}: {reason}"
            )
            run = await ledger.enter(run, Phase.ROLLING_BACK, request)
        run = await undo(run)
        await report.write(run)
    return run


async def undo(run: Release) -> Release:
    """Save the evidence, restore the unfinished dead letters, activate the previous revision and probe it."""
    reason = run.reason
    evidence = await back.save_evidence(run)
    try:
        activated = await back.activate(run)
        conclusion = await back.conclude(run, activated, reason, evidence)
    except RunbookError as error:
        # Fenced by a host: our ledger is still ours, so the end is recorded. With the lock lost, its new holder does.
        if isinstance(error, LockLost) and not isinstance(error, Fenced):
            raise
        conclusion = Conclusion(
            verdict=Verdict.FAIL, sentence=f"rollback failed: {error}; it was started because {reason}"
        )
    if conclusion.verdict is Verdict.PASS:
        return await ledger.enter(run, Phase.ROLLED_BACK, conclusion)
    return await ledger.enter(run, Phase.ROLLBACK_FAILED, conclusion)
