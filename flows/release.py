"""The release: deploy a revision, prove it, drain the dead letters, watch, and roll back automatically on a breach."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import starting
from flows.announce import announce, announce_change
from flows.asked import Asked, sigterm, until_asked
from flows.beside import beside
from flows.canary import prove
from flows.drain import drain_all
from flows.ending import CANCELLED_ON_PAGE, as_state, failed, work
from flows.forms import EnvironmentName, OptionalReason, Person, ReleaseId, Revision
from flows.phase_run import in_its_run
from flows.rollback import undo
from flows.shown import shown
from flows.surroundings import looked_around
from flows.telling import tell_soon, telling
from flows.watch import watch_window
from handlers.errors import (
    LEDGER_AWAY,
    ConfigError,
    Locked,
    LockLost,
    RunbookError,
    TryAgain,
)
from handlers.release.decisions import Verb
from handlers.release.ledger.requests import Request
from handlers.release.note import HeldBy, PhaseNote
from handlers.release.phase import FINISHED, Conclusion, Phase, Release, Verdict
from handlers.release.topic import Topic
from tasks import canary, deploy, from_hosts, ledger, looking, plan, probe, report, requests
from tasks import rollback as back
from tasks.lock import held

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
"""How long a failed rollback is tried again before it waits for its next turn. The first one took its full time."""
_NOT_STARTED = (Phase.PLANNED, Phase.APPROVED)
Step = Callable[[Release], Awaitable[Conclusion]]

STEPS: dict[Phase, tuple[Step, Phase]] = {
    Phase.DEPLOYING: (deploy.deploy, Phase.PROBING),
    Phase.PROBING: (partial(beside, work=probe.probe), Phase.CANARY),
    Phase.CANARY: (partial(beside, work=prove), Phase.DRAINING),
    Phase.DRAINING: (partial(beside, work=drain_all), Phase.WATCHING),
    Phase.WATCHING: (watch_window, Phase.SUCCEEDED),
}
"""The step of each phase, and the phase that follows when it passes."""


@flow(name="release", flow_run_name="release {revision} to {environment}")
async def release(
    environment: EnvironmentName,
    revision: Revision,
    requested_by: Person,
    reason: OptionalReason = "",
    *,
    override_freeze: bool = False,
    override_promotion: bool = False,
) -> State[None]:
    """Deploy a revision, prove it, drain the dead letters and watch; roll back automatically on a breach.

    Args:
        environment: name of the environment file, such as production
        revision: commit, tag or branch of the ERP to release
        requested_by: name of the person who requests it
        reason: one sentence for the ledger and the report
        override_freeze: start it in a freeze, as a person whom the freeze names, with a reason
        override_promotion: start it unproven by the environment before, as a person whom the file names, with a reason
    """
    try:
        run = await plan.begin(
            environment,
            revision,
            requested_by=requested_by,
            reason=reason,
            override_freeze=override_freeze,
            override_promotion=override_promotion,
        )
        if why := await plan.why_waiting(run):
            # The run ends here: nothing waits for a person inside of one. `resume-due` starts what is approved.
            return Completed(name="WaitingForApproval", message=why)
        return as_state(await execute(run))
    except RunbookError as error:
        return failed(error)


@flow(name="carry-out", flow_run_name="release {release_id} in {environment}")
async def continue_release(
    environment: EnvironmentName,
    release_id: ReleaseId,
    take_over: OptionalReason = "",
    because: OptionalReason = "",
) -> State[None]:
    """Execute a release from the ledger: a planned one, a held one, or one whose controller died.

    Args:
        environment: name of the environment file
        release_id: the release, such as 2025-11-14.3
        take_over: the reason for taking the lock from a live controller
        because: who or what continues it, in one sentence for the ledger
    """
    try:
        with work():
            run = await execute_by_id(environment, release_id, take_over=take_over, because=because)
    except RunbookError as error:
        return failed(error)
    return as_state(run)


async def execute_by_id(
    environment: str, release_id: str, *, take_over: str = "", because: str = ""
) -> Release:
    """The same without Prefect, for when there is no server."""
    return await execute(await ledger.get(environment, release_id), take_over=take_over, because=because)


async def execute(run: Release, *, take_over: str = "", because: str = "") -> Release:
    """Run the phases from the one in the ledger until the release ends or is held; then write the report.

    Each phase is idempotent, so this also continues a release that was held or killed, or a rollback that failed.
    *because* says who or what continues it.
    """
    is_new = run.phase in _NOT_STARTED
    if run.phase is Phase.PLANNED:
        await starting.raise_if_waiting(run)
    async with telling(run.environment), _locked(run, take_over) as locked, shown(locked):
        run = await starting.begin(locked, because or "resumed by the operator")
        announce_change(locked, run)
        if run.phase is Phase.REFUSED:
            return run
        tell_soon(
            run, Topic.CARRIED, f"it is {run.phase}, {because or 'resumed by the operator'}", logged=True
        )
        scope = await plan.scope(run)
        if not is_new and run.phase in STEPS and (sentence := await from_hosts.taken_back(run)):
            taken = Conclusion(verdict=Verdict.FAIL, sentence=sentence, blames_revision=False)
            run = await ledger.enter(run, Phase.ROLLING_BACK, taken)
        async with looked_around(run) if run.phase in STEPS else nullcontext():
            with sigterm() as terminated:
                try:
                    while run.phase in STEPS:
                        before, run = run, await _run_phase(run, scope, terminated)
                        announce_change(before, run)
                finally:
                    # Nobody looks any more. While hosts go back, what is held must not go to the workers to leave.
                    if run.phase is not Phase.ROLLING_BACK:
                        await looking.open_intake(run)
        if run.phase is Phase.ROLLING_BACK:
            tried_before = locked.phase is Phase.ROLLBACK_FAILED
            run = await undo(run, keep_trying_seconds=RETRY_SECONDS if tried_before else None)
        if run.phase in FINISHED:
            await canary.withdraw(run)
        await report.write(run)
        await requests.answer(run, f"the release is {run.phase}")
    return run


@asynccontextmanager
async def _locked(run: Release, take_over: str) -> AsyncIterator[Release]:
    """Hold the lock. A release that has not started is refused for good when another release has the environment."""
    try:
        async with held(run, take_over=take_over) as locked:
            yield locked
    except Locked as error:
        # The lock of this very release is another controller's, which carries it on.
        if run.phase in _NOT_STARTED and error.release_id != run.id:
            await starting.refuse(run, f"another controller took the lock first: {error}")
        raise


async def _run_phase(run: Release, scope: tuple[Phase, ...], terminated: asyncio.Future[None]) -> Release:
    _, next_phase = STEPS[run.phase]
    if run.phase not in scope:
        return await ledger.enter(run, next_phase, await _skip_conclusion(run, next_phase, scope))
    return await in_its_run(run, lambda: _judge_phase(run, scope, terminated))


async def _judge_phase(run: Release, scope: tuple[Phase, ...], terminated: asyncio.Future[None]) -> Release:
    step, next_phase = STEPS[run.phase]
    try:
        conclusion = await until_asked(_run_step(step, run), run, terminated)
    except Asked as asked:
        return await _answered(run, next_phase, asked.request)
    match conclusion.verdict:
        case Verdict.PASS:
            return await ledger.enter(run, next_phase, conclusion)
        case Verdict.FAIL if run.phase is Phase.DEPLOYING and not conclusion.touched_hosts:
            return await ledger.enter(run, Phase.REFUSED, conclusion)
        case Verdict.FAIL if Phase.DEPLOYING in scope:
            return await _taken_back(run, conclusion)
        case _:
            return await ledger.hold(run, conclusion)


async def _taken_back(run: Release, conclusion: Conclusion) -> Release:
    """Begin the way back after a failure, or hold where the revision before does not survive a migration."""
    if why := await back.why_not_back(run):
        sentence = f"{conclusion.sentence}; it is not taken back: {why}"
        return await ledger.hold(run, replace(conclusion, sentence=sentence, held_by=HeldBy.GATE))
    run = await ledger.enter(run, Phase.ROLLING_BACK, conclusion)
    announce("breach", run, sentence=conclusion.sentence)
    return run


async def _answered(run: Release, next_phase: Phase, request: Request | None) -> Release:
    """Do what a person asked for. An abort, and a cancel on the Prefect page, go back where hosts were changed."""
    sentence = request.sentence if request else f"{CANCELLED_ON_PAGE} while it was {run.phase}"
    verb = request.verb if request else None
    if verb is Verb.SKIP and request is not None:
        note = PhaseNote(skipped_by=request.requested_by)
        skipped = Conclusion(verdict=Verdict.PASS, sentence=f"skipped: {sentence}", note=note)
        run = await ledger.enter(run, next_phase, skipped)
    elif verb is Verb.HOLD or (verb is None and await _stays(run)):
        held = Conclusion(verdict=Verdict.INCONCLUSIVE, sentence=sentence, held_by=HeldBy.OPERATOR)
        run = await ledger.hold(run, held)
    elif await ledger.changed_hosts(run):
        blames = verb is Verb.ROLLBACK
        failed = Conclusion(verdict=Verdict.FAIL, sentence=sentence, blames_revision=blames)
        run = await ledger.enter(run, Phase.ROLLING_BACK, failed)
    else:
        run = await requests.abort(run, sentence)
    await requests.answer(run, f"the release is {run.phase}")
    return run


async def _stays(run: Release) -> bool:
    """Whether a cancel on the Prefect page holds the release: no host was changed, or it cannot be undone."""
    return not await ledger.changed_hosts(run) or bool(await back.why_not_back(run))


async def _skip_conclusion(run: Release, next_phase: Phase, scope: tuple[Phase, ...]) -> Conclusion:
    """The conclusion of a phase outside the scope (a canary, drain or watch by hand skips phases).

    At the end it repeats the sentence of the last phase in the scope, which is the result of the whole run.
    """
    ended = next_phase is Phase.SUCCEEDED
    sentence = await ledger.last_sentence(run, scope) if ended else "not part of this run"
    return Conclusion(verdict=Verdict.PASS, sentence=sentence)


async def _run_step(step: Step, run: Release) -> Conclusion:
    """Run a step and turn its errors into a conclusion.

    An error fails the phase. Only where a measurement was impossible is the phase inconclusive.
    """
    try:
        return await step(run)
    except LockLost:
        raise
    except LEDGER_AWAY as error:
        # Nothing is known against the revision, and no host is at fault.
        sentence = f"{run.phase} stopped because the database could not be used for minutes: {error}. "
        return Conclusion(
            verdict=Verdict.INCONCLUSIVE,
            sentence=f"{sentence}When it is back, `runbook resume --due` continues it.",
            held_by=HeldBy.DATABASE,
        )
    except ConfigError as error:
        # It says something about a file of ours, and nothing about the revision or a host.
        sentence = (
            f"{run.phase} could not continue: {error}. Then run `runbook resume` or `runbook rollback`."
        )
        return Conclusion(verdict=Verdict.INCONCLUSIVE, sentence=sentence, held_by=HeldBy.SETTINGS)
    except TryAgain as error:
        blind = run.phase in (Phase.CANARY, Phase.DRAINING, Phase.WATCHING)
        verdict = Verdict.INCONCLUSIVE if blind else Verdict.FAIL
        sentence = f"{run.phase} could not continue: {error}"
        return Conclusion(verdict=verdict, sentence=sentence, blames_revision=False, held_by=HeldBy.HOST)
    except RunbookError as error:
        sentence = f"{run.phase} failed: {error}"
        return Conclusion(verdict=Verdict.FAIL, sentence=sentence, blames_revision=False)
    except Exception as error:
        # A bug in the runbook says nothing about the revision. It is tried again a few times, then a person decides.
        # The log has the traceback.
        log.exception("release %s, phase %s", run.id, run.phase)
        return Conclusion(
            verdict=Verdict.INCONCLUSIVE,
            sentence=f"{run.phase}: error in the runbook itself, {type(error).__name__}: {error}. "
            "Run `runbook resume` or `runbook rollback`.",
            held_by=HeldBy.RUNBOOK,
        )
