"""The step of an approval: what a person decided about a plan, written into the ledger."""

from __future__ import annotations

from handlers.phases import approve
from handlers.phases.approve import Decided
from tasks.policy import KEEP, step
from tasks.tools import tools

WAY = "Prefect page"


@step(KEEP, "Approve the plan of {release_id}")
async def give(environment: str, release_id: str, *, plan: str, by: str, reason: str) -> Decided:
    """Approve the plan with this hash. Raises Refused when the person may not, or the plan is another."""
    async with tools(environment) as core:
        return await approve.approve(
            core.database, environment, release_id, plan=plan, by=by, reason=reason, way=WAY
        )


@step(KEEP, "Reject the plan of {release_id}")
async def reject(environment: str, release_id: str, *, by: str, reason: str) -> Decided:
    """End a plan that waits. Raises Refused when it does not wait any more."""
    async with tools(environment) as core:
        return await approve.reject(core.database, environment, release_id, by=by, reason=reason, way=WAY)
