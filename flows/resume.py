"""Resume a release that is held, or whose controller died."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from flows.ending import as_state
from flows.release import execute
from tasks import ledger


@flow(name="resume", flow_run_name="resume-{environment}")
async def resume(environment: str, take_over: str = "") -> State[None]:
    """Resume the unfinished release of an environment from the phase in the ledger.

    Args:
        environment: name of the environment file
        take_over: the reason for taking the lock from a live controller
    """
    return as_state(await execute(await ledger.unfinished(environment), take_over=take_over))
