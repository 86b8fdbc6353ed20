"""Recording a planned release, and the two ways to end one early: abort it, or roll it back."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core
from handlers.database import migrate
from handlers.database.transaction import transaction
from handlers.environment import last_good
from handlers.errors import Refused
from handlers.phases.plan import why_quarantined
from handlers.release import lock
from handlers.release.ledger import dead_letters, releases
from handlers.release.phase import LIVE, NEXT, Phase, Release, short
from handlers.release.planned import Plan


async def record_release(
    core: Core, plan: Plan, *, requested_by: str, reason: str, speed: float = 1.0
) -> Release:
    """Record a planned release in the ledger, with exactly the dead letters that it may redrive.

    Migrates the ledger's schema first. Raises Refused when a check failed or the revision is in quarantine.
    """
    if not plan.good:
        raise Refused(plan.refusal)
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
    last_good.keep(plan.environment, {run.id: plan.settings})
    return run


async def abort(database: AsyncEngine, run: Release, *, by: str, reason: str) -> Release:
    """End a planned or held release; what is deployed stays deployed. Raises Refused in any other phase."""
    if Phase.ABORTED not in NEXT[run.phase]:
        raise Refused(
            f"release {run.id} is {run.phase}: only a planned or held release can be aborted; "
            "use `runbook rollback` for any other"
        )
    holder = await lock.holder(database, run.environment)
    if holder is not None and holder.alive:
        raise Refused(f"{holder.name} is running release {holder.release_id}: stop that process first")
    async with transaction(database) as tx:
        token = await lock.take(tx, run.environment, run.id, f"abort by {by}")
        locked = await releases.get(tx, run.id)
        sentence = f"aborted by {by}: {reason}"
        ended = await releases.enter(tx, locked, Phase.ABORTED, sentence=sentence)
        await lock.free(tx, run.environment, token)
    return ended


async def rollback_candidate(database: AsyncEngine, environment: str) -> Release:
    """The release that a rollback would undo: the live one, otherwise the newest that changed a host.

    Raises Refused when there is none, or when it has been rolled back already.
    """
    run = await releases.live(database, environment)
    if run is not None:
        return run
    for past in await releases.history(database, environment, limit=50):
        if past.from_revision == past.to_revision or past.phase in (Phase.ABORTED, Phase.REFUSED):
            continue
        if past.phase in LIVE or Phase.ROLLING_BACK in NEXT[past.phase]:
            return past
        if past.phase is Phase.ROLLED_BACK:
            raise Refused(
                f"release {past.id} of {environment} has been rolled back already, to {short(past.from_revision)}"
            )
        break
    raise Refused(f"{environment} has no release that could be rolled back")
