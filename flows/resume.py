"""Resume a release that is held, or whose controller died."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from flows.ending import as_told
from flows.forms import EnvironmentName, OptionalReason, Person
from flows.release import execute
from handlers.release.phase import Release
from tasks import ledger


@flow(name="resume", flow_run_name="resume {environment}")
async def resume(
    environment: EnvironmentName,
    requested_by: Person,
    reason: OptionalReason = "",
    take_over: OptionalReason = "",
) -> State[None]:
    """Resume the unfinished release of an environment from the phase in the ledger.

    Args:
        environment: name of the environment file
        requested_by: name of the person who requests it
        reason: one sentence for the ledger
        take_over: the reason for taking the lock from a live controller
    """

    async def carry() -> Release:
        because = f"resumed by {requested_by}" + (f": {reason}" if reason else "")
        return await execute(await ledger.unfinished(environment), take_over=take_over, because=because)

    return await as_told(carry)
