"""The steps that plan a release, record it in the ledger, and check it for drift."""

from __future__ import annotations

from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.phases import approve, drift
from handlers.phases.begin import record_release
from handlers.phases.plan import make_plan
from handlers.release import approval
from handlers.release.ledger import releases
from handlers.release.ledger.approvals import given
from handlers.release.override import OverrideRequest, requested
from handlers.release.phase import Phase, Release
from handlers.release.planned import EVERYTHING, Plan
from tasks.policy import KEEP, LOOK, step
from tasks.tools import tools


@step(LOOK, "Plan the release")
async def make(
    environment: str,
    revision: str | None,
    scope: tuple[Phase, ...] = EVERYTHING,
    *,
    override: OverrideRequest | None = None,
) -> Plan:
    """Plan a release from hosts, queue and ledger; changes nothing. Raises ConfigError when the file is wrong."""
    # The file as it is: only what continues a release goes on with the last good one.
    async with open_core(load_environment(environment)) as core:
        return await make_plan(core, revision, scope, override=override)


@step(KEEP, "Ask whether it waits for approval")
async def why_waiting(run: Release) -> str:
    """Why a release that has not started may not start: it waits for approval, or expired. Empty when it may."""
    async with tools(run) as core:
        return await approve.why_waiting(core.database, run)


@step(KEEP, "Read the approvals")
async def approvals(run: Release) -> str:
    """Who has approved the release, for the ledger; empty where nobody had to."""
    async with tools(run) as core:
        return approval.in_words(await given(core.database, run.id))


@step(KEEP, "Record the plan in the ledger")
async def record(plan: Plan, *, requested_by: str, reason: str, speed: float = 1.0) -> Release:
    """Record a planned release in the ledger. Raises Refused when a check of the plan failed."""
    async with tools(plan.environment) as core:
        return await record_release(core, plan, requested_by=requested_by, reason=reason, speed=speed)


async def begin(
    environment: str,
    revision: str,
    *,
    requested_by: str,
    reason: str,
    override_freeze: bool = False,
    override_promotion: bool = False,
) -> Release:
    """Plan a whole release and record it in the ledger. Raises Refused when a check fails."""
    override = requested(requested_by, reason, freeze=override_freeze, promotion=override_promotion)
    plan = await make(environment, revision, override=override)
    return await record(plan, requested_by=requested_by, reason=reason)


@step(LOOK, "Compare the world with the plan")
async def find_drift(run: Release) -> str:
    """What has changed since the plan of a release that has not started; an empty string when nothing has."""
    async with tools(run) as core:
        return await drift.since_planned(core, run)


@step(KEEP, "Read the scope of the plan")
async def scope(run: Release) -> tuple[Phase, ...]:
    """The phases that this release runs; it skips the others."""
    async with tools(run) as core:
        return (await releases.plan(core.database, run.id)).scope


@step(KEEP, "Read the plan in a sentence")
async def summary(run: Release) -> str:
    """The plan in one sentence, for the status view."""
    async with tools(run) as core:
        return (await releases.plan(core.database, run.id)).summary
