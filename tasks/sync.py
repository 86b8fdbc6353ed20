"""The steps of a sync from the source. Each may be repeated: the ledger knows how far it is."""

from __future__ import annotations

from collections.abc import Sequence

from handlers.errors import RunbookError
from handlers.queue.event import EntityType
from handlers.zoho import outcome, reading, runs, sync_needs
from handlers.zoho.outcome import Outcome
from handlers.zoho.progress import Step
from handlers.zoho.runs import Kind, Run
from tasks.policy import BESIDE, KEEP, step
from tasks.tools import tools


@step(KEEP, "Begin the sync")
async def begin(
    environment: str, kind: Kind, entities: Sequence[EntityType], by: str, deletes_all: bool = False
) -> Run:
    """Begin a sync, or carry on the one that was not finished."""
    async with tools(environment) as core:
        reading.settings_of(core)
        await sync_needs.raise_if_impossible(core)
        return await runs.begin(
            core.database, core.environment.name, kind, entities, by=by, deletes_all=deletes_all
        )


@step(BESIDE, "Read {entity}")
async def read(environment: str, run: Run, entity: EntityType) -> Step:
    """Read one entity type to its end, from where it was."""
    async with tools(environment) as core:
        return await reading.read(core, run, entity)


@step(KEEP, "Finish the sync")
async def finish(environment: str, run: Run) -> Outcome:
    """Record the end of a sync."""
    async with tools(environment) as core:
        return await outcome.finish(core, run)


@step(KEEP, "Record where the sync stopped")
async def stop(environment: str, run: Run, error: RunbookError) -> Outcome:
    """Record why a sync stopped; it goes on where it was."""
    async with tools(environment) as core:
        return await outcome.stop(core, run, error)
