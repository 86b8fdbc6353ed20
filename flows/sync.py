"""Bringing the ERP's tables up to date from the source, without webhooks: the fallback."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.forms import EnvironmentName
from handlers.errors import ExitCode, RunbookError
from handlers.queue.event import EntityType
from handlers.zoho.outcome import Outcome, entities_of
from handlers.zoho.runs import Kind
from tasks import sync as steps


@flow(name="sync", flow_run_name="sync {kind} of {environment}")
async def sync(
    environment: EnvironmentName, kind: Kind, entities: list[EntityType] | None = None
) -> State[None]:
    """Read what changed at the source and queue it behind the webhooks. A sync that was not finished goes on.

    *full* reads everything and finds deletes, *incremental* what has changed, *stock* the stock of every item.

    Args:
        environment: name of the environment file, such as production
        kind: full, incremental or stock
        entities: only these types; empty means all
    """
    try:
        outcome = await carry(environment, kind, entities or (), by="schedule")
    except RunbookError as error:
        if error.exit_code is ExitCode.OWN_ERROR:
            raise
        return Completed(name="NotStarted", message=str(error)[:1000])
    if outcome.exit_code in (ExitCode.GOOD, ExitCode.HELD):
        return Completed(name=outcome.state.value.capitalize(), message=outcome.sentence[:1000])
    return Failed(message=outcome.sentence[:1000])


async def carry(
    environment: str, kind: Kind, entities: Sequence[EntityType], *, by: str, deletes_all: bool = False
) -> Outcome:
    """Carry a sync to its end, or to where it must stop. Raises what keeps it from beginning."""
    run = await steps.begin(environment, kind, entities_of(kind, entities), by, deletes_all)
    try:
        for entity in run.entities:
            await steps.read(environment, run, entity)
    except RunbookError as error:
        return await steps.stop(environment, run, error)
    return await steps.finish(environment, run)
