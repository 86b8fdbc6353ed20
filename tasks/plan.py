"""Planning a release and writing it down."""

from __future__ import annotations

from uuid import UUID

from handlers import ledger, preflight
from handlers.database import transaction
from handlers.errors import Refused
from handlers.plan import EVERYTHING, Plan
from handlers.release import Phase, Release
from tasks.policy import LOOK, KEEP, step
from tasks.tools import tools


@step(LOOK)
async def make(environment: str, revision: str | None, scope: tuple[Phase, ...] = EVERYTHING) -> Plan:
    """Look at hosts, queue and ledger, and say what a release would do; changes nothing."""
    async with tools(environment) as core:
        return await preflight.plan(core, revision, scope)


@step(KEEP)
async def write_down(plan: Plan, *, requested_by: str, reason: str, speed: float = 1.0) -> Release:
    """Put a planned release into the ledger, with exactly the dead letters that it may touch."""
    if not plan.good:
        raise Refused("; ".join(check.sentence for check in plan.checks if not check.good))
    async with tools(plan.environment) as core:
        await ledger.upgrade(core.database)
        async with transaction(core.database) as tx:
            run = await ledger.begin(
                tx,
                environment=plan.environment,
                from_revision=plan.from_revision,
                to_revision=plan.to_revision,
                requested_by=requested_by,
                plan={**plan.as_json(), "reason": reason},
                plan_hash=plan.hash,
                speed=speed,
            )
            events = [
                (position, UUID(event.id), event.entity.value, event.key)
                for position, event in enumerate(plan.events)
            ]
            await ledger.plan_events(tx, run, events)
        return run


async def begin(environment: str, revision: str, *, requested_by: str, reason: str) -> Release:
    """Plan a whole release and write it down; Refused when a check fails."""
    plan = await make(environment, revision)
    return await write_down(plan, requested_by=requested_by, reason=reason)


@step(KEEP)
async def scope(run: Release) -> tuple[Phase, ...]:
    """The phases that this release goes through; the others are left out."""
    async with tools(run) as core:
        stored = await ledger.plan(core.database, run.id)
    return tuple(Phase(phase) for phase in stored["scope"])
