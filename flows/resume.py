"""Going on with a release that was held, or whose controller died."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from flows.release import as_state, carry_out
from flows.rollback import undo
from handlers.release import Release
from tasks import ledger


@flow(name="resume", flow_run_name="resume-{environment}")
async def resume(environment: str, requested_by: str = "prefect", reason: str = "") -> State[None]:
    """Go on with the live release of an environment from the phase in the ledger.

    Args:
        environment: name of the environment file
        requested_by: who asks for it
        reason: why, in one sentence
    """
    return as_state(await by_hand(environment, reason=reason, requested_by=requested_by))


async def by_hand(environment: str, *, reason: str, requested_by: str) -> Release:
    """Take a held release out of its hold, or an orphaned one from its phase, and carry it out to its end."""
    run = await ledger.take_up(environment, sentence=f"resumed by {requested_by}: {reason or 'no reason given'}")
    return await carry_out(run)
