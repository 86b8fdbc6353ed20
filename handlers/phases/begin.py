"""Recording a planned release, and the two ways to end one early: abort it, or roll it back."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from handlers.core import Core
from handlers.database import migrate
from handlers.database.transaction import transaction
from handlers.environment import last_good
from handlers.errors import Refused
from handlers.phases import approve, open_operations
from handlers.phases.deploy import has_touched
from handlers.phases.drain import restore_unsettled
from handlers.phases.plan import why_quarantined
from handlers.release import due, lock
from handlers.release.controller import controller_name, this_controller
from handlers.release.ledger import approvals, dead_letters, releases
from handlers.release.note import HeldBy, PhaseNote
from handlers.release.phase import FINISHED, LIVE, NEXT, Phase, Release, short
from handlers.release.planned import Plan
from handlers.release.preflight import failure_of


async def record_release(
    core: Core, plan: Plan, *, requested_by: str, reason: str, speed: float = 1.0, starts: bool = True
) -> Release:
    """Record a planned release in the ledger, with exactly the dead letters that it may redrive.

    Migrates the ledger's schema first. Where the environment asks for approvals it waits for them; *starts*: by itself,
    once it is approved. Raises Refused when a check failed or the revision is in quarantine.
    """
    if not plan.good:
        raise failure_of(plan.checks)
    await migrate.upgrade(core.database)
    # Checked again: the plan may be older than the quarantine, or the ledger's schema was outdated then.
    deploys = plan.from_revision != plan.to_revision
    if deploys and (why := await why_quarantined(core, plan.to_revision)) is not None:
        raise Refused(why)
    async with transaction(core.database) as tx:
        run = await releases.begin(tx, plan=plan, requested_by=requested_by, reason=reason, speed=speed)
        events = [
            (position, UUID(event.id), event.entity.value, event.key)
            for position, event in enumerate(plan.events)
        ]
        await dead_letters.plan_events(tx, run, events)
        await approvals.override(tx, run.id, plan.overrides)
        await approve.ask(tx, run, plan, starts=starts)
    last_good.keep(plan.environment, {run.id: plan.settings})
    return run


async def changed_hosts(core: Core, run: Release) -> bool:
    """Whether the release started to change a running service: then it can only end by going back."""
    return run.phase is Phase.ROLLING_BACK or await has_touched(core, run)


async def abort(core: Core, run: Release, *, by: str, reason: str) -> Release:
    """End a release that has changed no host: its unfinished dead letters are restored, and it is aborted.

    Raises Locked while a living controller runs it, and Refused when it has ended or has changed a host: that one is
    rolled back, because an abort never leaves a new revision in place.
    """
    if run.phase in FINISHED:
        raise Refused(f"release {run.id} is {run.phase}: it has ended; `runbook rollback` goes back")
    if await changed_hosts(core, run):
        raise Refused(f"release {run.id} has changed hosts: `runbook rollback` takes them back")
    token = await lock.take(
        core.database, run.environment, run.id, controller_name(), controller=this_controller()
    )
    try:
        locked = await releases.get(core.database, run.id)
        await open_operations.settle(core, locked)
        restored = await restore_unsettled(core, locked)
        sentence = f"aborted by {by}: {reason}; no host was changed"
        if restored:
            sentence += f"; {restored} unfinished dead letters restored"
        return await releases.enter(core.database, locked, Phase.ABORTED, sentence=sentence)
    finally:
        await lock.free(core.database, run.environment, token)


async def hold(core: Core, run: Release, *, by: str, reason: str) -> Release:
    """Hold a release that nobody carries, until a person decides. A hold for another reason becomes this person's.

    Raises Locked while a living controller runs it.
    """
    sentence = f"held by {by}: {reason}"
    note = PhaseNote(held_by=HeldBy.OPERATOR)
    if run.phase is Phase.HELD:
        await releases.note(core.database, run, replace(note, looked=sentence))
        return await releases.get(core.database, run.id)
    token = await lock.take(
        core.database, run.environment, run.id, controller_name(), controller=this_controller()
    )
    try:
        locked = await releases.get(core.database, run.id)
        return await releases.hold(core.database, locked, sentence, note=note)
    finally:
        await lock.free(core.database, run.environment, token)


async def rollback_candidate(core: Core) -> Release:
    """The release that a rollback would undo: the live one that changed hosts, otherwise the newest that did.

    A plan that has not started, and a phase by hand, do not hide it. Raises Refused when there is none, or when it has
    been rolled back already.
    """
    environment = core.environment.name
    run = await releases.live(core.database, environment)
    if run is not None and not _is_on_top(run):
        return run
    for past in await releases.history(core.database, environment, limit=50):
        if _is_on_top(past) or past.phase in (Phase.ABORTED, Phase.REFUSED):
            continue
        if past.phase in LIVE or Phase.ROLLING_BACK in NEXT[past.phase]:
            return past
        if past.phase is Phase.ROLLED_BACK:
            raise Refused(
                f"release {past.id} of {environment} has been rolled back already, to {short(past.from_revision)}"
            )
        break
    raise Refused(f"{environment} has no release that could be rolled back")


async def clear_the_way(core: Core, candidate: Release, *, by: str) -> None:
    """End what lies on top of the release that is rolled back: a plan that has not started, a phase by hand.

    Raises Locked while a living controller runs it.
    """
    for run in await due.unfinished_releases(core.database, candidate.environment):
        if run.id != candidate.id and _is_on_top(run):
            await abort(core, run, by=by, reason=f"release {candidate.id} below it is rolled back")


def _is_on_top(run: Release) -> bool:
    """Whether the release deployed nothing: it has not started, or it only proves what runs."""
    return run.phase in (Phase.PLANNED, Phase.APPROVED) or run.from_revision == run.to_revision
