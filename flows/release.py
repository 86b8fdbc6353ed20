"""The release: deploy a revision, prove it, drain the dead letters, watch, and undo it when the gate says no."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.canary import prove
from flows.drain import drain_all
from flows.ending import as_state, work
from flows.rollback import undo
from flows.watch import watch_window
from handlers.errors import LockLost, Refused, RunbookError, TryAgain
from handlers.release.phase import Conclusion, Phase, Release, Verdict
from tasks import deploy, ledger, plan, probe, report
from tasks.lock import held

log = logging.getLogger(__name__)

Step = Callable[[Release], Awaitable[Conclusion]]

STEPS: dict[Phase, tuple[Step, Phase]] = {
    Phase.DEPLOYING: (deploy.deploy, Phase.PROBING),
    Phase.PROBING: (probe.probe, Phase.CANARY),
    Phase.CANARY: (prove, Phase.DRAINING),
    Phase.DRAINING: (drain_all, Phase.WATCHING),
    Phase.WATCHING: (watch_window, Phase.SUCCEEDED),
}
"""What is done in each phase, and where a release goes from there when it passes."""


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


@flow(name="carry-out", flow_run_name="carry-out-{environment}-{release_id}")
async def go_on(environment: str, release_id: str, take_over: str = "") -> State[None]:
    """Carry out a release that stands in the ledger: a planned one, a held one, or one whose controller died.

    Args:
        environment: name of the environment file
        release_id: the release, such as 2025-11-14.3
        take_over: the reason for taking it from a controller that still lives
    """
    with work():
        run = await by_id(environment, release_id, take_over=take_over)
    return as_state(run)


async def by_id(environment: str, release_id: str, *, take_over: str = "") -> Release:
    """The same without Prefect, for when there is no server at all."""
    return await carry_out(await ledger.get(environment, release_id), take_over=take_over)


async def carry_out(run: Release, *, take_over: str = "") -> Release:
    """Go on from the phase in the ledger until nothing more happens by itself; then write the report.

    Doing a phase twice is harmless, so this is also how a release that was held or killed goes on.
    """
    if run.phase in (Phase.PLANNED, Phase.APPROVED) and (moved := await plan.what_moved(run)):
        return await ledger.enter(run, Phase.REFUSED, Conclusion(verdict=Verdict.FAIL, sentence=moved))
    if run.phase is Phase.PLANNED:
        run = await ledger.enter(run, Phase.APPROVED, sentence=await plan.summary(run))
    async with _own(run, take_over) as run:
        scope = await plan.scope(run)
        while run.phase in STEPS:
            run = await _one_phase(run, scope)
        if run.phase is Phase.ROLLING_BACK:
            run = await undo(run)
        await report.write(run)
    return run


@asynccontextmanager
async def _own(run: Release, take_over: str) -> AsyncIterator[Release]:
    """Hold the environment and stand in a phase of the work; a new release that may not is refused for good."""
    async with AsyncExitStack() as stack:
        try:
            run = await stack.enter_async_context(held(run, take_over=take_over))
            if run.phase is Phase.HELD:
                run = await ledger.resume(run, "a person said: go on")
            if run.phase is Phase.APPROVED:
                no_approval = f"this environment asks for none; lock taken, token {run.token}"
                run = await ledger.enter(run, Phase.DEPLOYING, sentence=no_approval)
        except Refused as error:
            # Otherwise it would lie there and be taken for the one to go on with.
            if run.phase is Phase.APPROVED:
                sentence = f"another controller was first: {error}"
                await ledger.enter(run, Phase.REFUSED, Conclusion(verdict=Verdict.FAIL, sentence=sentence))
            raise
        yield run


async def _one_phase(run: Release, scope: tuple[Phase, ...]) -> Release:
    step, onward = STEPS[run.phase]
    if run.phase not in scope:
        return await ledger.enter(run, onward, await _skipped(run, onward, scope))
    conclusion = await _concluded(step, run)
    match conclusion.verdict:
        case Verdict.PASS:
            return await ledger.enter(run, onward, conclusion)
        case Verdict.FAIL if run.phase is Phase.DEPLOYING and not conclusion.touched_hosts:
            return await ledger.enter(run, Phase.REFUSED, conclusion)
        case Verdict.FAIL if Phase.DEPLOYING in scope:
            return await ledger.enter(run, Phase.ROLLING_BACK, conclusion)
        case _:
            return await ledger.hold(run, conclusion)


async def _skipped(run: Release, onward: Phase, scope: tuple[Phase, ...]) -> Conclusion:
    """A canary, a drain or a watch by hand leaves phases out; how it ended is what its own last phase said."""
    ended = onward is Phase.SUCCEEDED
    sentence = await ledger.last_word(run, scope) if ended else "not part of this run"
    return Conclusion(verdict=Verdict.PASS, sentence=sentence)


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
    except Exception as error:
        # A fault of our own says nothing about the release: a person decides, and the log has the rest.
        log.exception("release %s, phase %s", run.id, run.phase)
        return Conclusion(
            verdict=Verdict.INCONCLUSIVE,
            sentence=f"{run.phase} met an error of our own, {type(error).__name__}: {error}; resume or roll back",
        )
