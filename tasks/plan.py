"""The steps that plan a release, record it in the ledger, and check it for drift."""

from __future__ import annotations

from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.phases import drift
from handlers.phases.begin import record_release
from handlers.phases.plan import make_plan
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release
from handlers.release.planned import EVERYTHING, Plan
from tasks.policy import KEEP, LOOK, step
from tasks.tools import tools


@step(LOOK)
async def make(environment: str, revision: str | None, scope: tuple[Phase, ...] = EVERYTHING) -> Plan:
    """Plan a release from hosts, queue and ledger; changes nothing. Raises ConfigError when the file is wrong."""
    # The file as it is: only what continues a release goes on with the last good one.
    async with open_core(load_environment(environment)) as core:
        return await make_plan(core, revision, scope)


@step(KEEP)
async def record(plan: Plan, *, requested_by: str, reason: str, speed: float = 1.0) -> Release:
    """Record a planned release in the ledger. Raises Refused when a check of the plan failed."""
    async with tools(plan.environment) as core:
        return await record_release(core, plan, requested_by=requested_by, reason=reason, speed=speed)


async def begin(environment: str, revision: str, *, requested_by: str, reason: str) -> Release:
    """Plan a whole release and record it in the ledger. Raises Refused when a check fails."""
    plan = await make(environment, revision)
    return await record(plan, requested_by=requested_by, reason=reason)


@step(LOOK)
async def find_drift(run: Release) -> str:
    """What has changed since the plan of a release that has not started; an empty string when nothing has."""
    async with tools(run) as core:
        return await drift.since_planned(core, run)


@step(KEEP)
async def scope(run: Release) -> tuple[Phase, ...]:
    """The phases that this release runs; it skips the others."""
    async with tools(run) as core:
        return (await releases.plan(core.database, run.id)).scope


@step(KEEP)
async def summary(run: Release) -> str:
    """The plan in one sentence, for the status view."""
    async with tools(run) as core:
        plan = await releases.plan(core.database, run.id)
    return f"{plan.hash}: {len(plan.checks)} checks passed, {len(plan.events)} dead letters to drain"
