"""Going on with a release that was held, or whose controller died."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from flows.ending import as_state
from flows.release import carry_out
from tasks import ledger


@flow(name="resume", flow_run_name="resume-{environment}")
async def resume(environment: str, take_over: str = "") -> State[None]:
    """Go on with the unfinished release of an environment from the phase in the ledger.

    Args:
        environment: name of the environment file
        take_over: the reason for taking it from a controller that still lives
    """
    return as_state(await carry_out(await ledger.unfinished(environment), take_over=take_over))
