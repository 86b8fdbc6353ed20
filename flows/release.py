"""The release: deploy a revision, prove it, drain the dead letters, watch, and undo it when the gate says no."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from prefect import flow
from prefect.states import Completed, Failed
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.canary import prove
from flows.drain import drain_all
from flows.rollback import undo
from flows.watch import watch_window
from handlers.errors import ExitCode, LockLost, RunbookError, TryAgain
from handlers.release import Conclusion, Phase, Release, Verdict, exit_code
from tasks import deploy, ledger, plan, probe, report
from tasks.lock import held

Step = Callable[[Release], Awaitable[Conclusion]]

STEPS: dict[Phase, tuple[Step, Phase]] = {
    Phase.DEPLOYING: (deploy.deploy, Phase.PROBING),
    Phase.PROBING: (probe.probe, Phase.CANARY),
    Phase.CANARY: (prove, Phase.DRAINING),
    Phase.DRAINING: (drain_all, Phase.WATCHING),
    Phase.WATCHING: (watch_window, Phase.SUCCEEDED),
}
"""What is done in each phase, and where a release goes from there when it passes."""

SKIPPED = Conclusion(verdict=Verdict.PASS, sentence="not part of this run")
"""A canary, a drain or a watch by hand is a release that leaves the other phases out."""


@flow(name="release", flow_run_name="release-{environment}-{revision}")
async def release(
    environment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")],
    revision: Annotated[str, Field(min_length=1, max_length=200)],
    requested_by: str = "prefect",
    reason: str = "",
) -> State[None]:
    """Deploy a revision, prove it, drain the dead letters and watch; undo it when the gate says no.

    Args:
        environment: name of the environment file, such as production
        revision: commit, tag or branch of the ERP to release
        requested_by: who asks for it
        reason: one sentence for the ledger and the report
    """
    run = await plan.begin(environment, revision, requested_by=requested_by, reason=reason)
    return as_state(await carry_out(run))


async def carry_out(run: Release) -> Release:
    """Go on from the phase in the ledger until nothing more happens by itself; then write the report.

    Doing a phase twice is harmless, so this is also how a release that was killed goes on.
    """
    if run.phase is Phase.PLANNED:
        run = await ledger.enter(run, Phase.APPROVED, sentence="this environment asks for no approval")
    async with held(run) as run:
        if run.phase is Phase.APPROVED:
            run = await ledger.enter(run, Phase.DEPLOYING, sentence=f"lock taken, token {run.token}")
        scope = await plan.scope(run)
        while run.phase in STEPS:
            run = await _one_phase(run, scope)
        if run.phase is Phase.ROLLING_BACK:
            run = await undo(run)
        await report.write(run)
    return run


async def _one_phase(run: Release, scope: tuple[Phase, ...]) -> Release:
    step, onward = STEPS[run.phase]
    if run.phase not in scope:
        return await ledger.enter(run, onward, SKIPPED)
    conclusion = await _concluded(step, run)
    match conclusion.verdict:
        case Verdict.PASS:
            return await ledger.enter(run, onward, conclusion)
        case Verdict.FAIL if Phase.DEPLOYING in scope:
            return await ledger.enter(run, Phase.ROLLING_BACK, conclusion)
        case _:
            return await ledger.hold(run, conclusion)


async def _concluded(step: Step, run: Release) -> Conclusion:
    """A phase that breaks off has failed, but one that could not ask the world has only learnt nothing."""
    try:
        return await step(run)
    except LockLost:
        raise
    except TryAgain as error:
        blind = run.phase in (Phase.CANARY, Phase.DRAINING, Phase.WATCHING)
        verdict = Verdict.INCONCLUSIVE if blind else Verdict.FAIL
        return Conclusion(verdict=verdict, sentence=f"{run.phase} could not go on: {error}")
    except RunbookError as error:
        return Conclusion(verdict=Verdict.FAIL, sentence=f"{run.phase} broke off: {error}")


def as_state(run: Release) -> State[None]:
    """How the Prefect page shows the end of a release: green, red, or completed under a name of its own."""
    match exit_code(run.phase):
        case ExitCode.GOOD:
            return Completed(message=run.reason)
        case ExitCode.ROLLED_BACK:
            return Completed(name="RolledBack", message=run.reason)
        case ExitCode.HELD:
            return Completed(name="Held", message=run.reason)
        case _:
            return Failed(message=run.reason)
