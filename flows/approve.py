"""Approving a plan from the Prefect page. The run only writes the decision; `resume-due` starts what is approved."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from flows.forms import EnvironmentName, Person, Reason
from flows.telling import telling
from handlers.errors import Refused
from handlers.release.phase import Phase
from tasks import approve as decide

STATES = {Phase.APPROVED: "Approved", Phase.PLANNED: "WaitingForApproval", Phase.REFUSED: "Rejected"}
"""The name of the run's state, by what became of the release."""


@flow(name="approve", flow_run_name="approve {release_id} in {environment}")
async def approve(  # noqa: PLR0917  A form has its fields.
    environment: EnvironmentName,
    release_id: Annotated[str, Field(min_length=1, max_length=40)],
    plan_hash: Annotated[str, Field(min_length=1, max_length=64)],
    approved_by: Person,
    reason: Reason,
    is_rejected: bool = False,
) -> State[None]:
    """Approve exactly the plan that you have read, or reject it.

    Args:
        environment: name of the environment file, such as production
        release_id: the release that waits, such as 2025-11-14.3
        plan_hash: the whole hash of the plan that you have read
        approved_by: your name
        reason: what makes you sure, in one sentence
        is_rejected: end the plan instead of approving it
    """
    try:
        async with telling(environment):
            decided = await (
                decide.reject(environment, release_id, by=approved_by, reason=reason)
                if is_rejected
                else decide.give(environment, release_id, plan=plan_hash, by=approved_by, reason=reason)
            )
    except Refused as error:
        return Failed(name="Refused", message=str(error))
    return Completed(name=STATES[decided.release.phase], message=decided.sentence)
