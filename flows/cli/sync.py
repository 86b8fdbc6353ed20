"""The commands `runbook sync …`: bring the tables up to date from the source, and see how far that is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import sync_app
from flows.cli.options import ByOption, EnvironmentOption, JsonOption, PlainOption, parse_entity
from flows.cli.output import console, print_json, requester
from flows.cli.session import raise_if_no_ledger, with_database
from handlers.core import open_core
from handlers.environment.last_good import last_good
from handlers.environment.model import Environment
from handlers.errors import ExitCode, RunbookError
from handlers.queue.event import EntityType
from handlers.zoho import progress, runs
from handlers.zoho.dry_run import Preview, preview
from handlers.zoho.outcome import Outcome, entities_of
from handlers.zoho.progress import Stage, Step
from handlers.zoho.runs import Kind

_LOOK_SECONDS = 0.5

EntitiesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--entity", help="Only this entity type; may be repeated. Default: all.", show_default=False
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only compare the lists with the tables; change nothing.")
]


@sync_app.command("full", short_help="read everything, and find what was deleted")
def full(
    environment: EnvironmentOption,
    entity: EntitiesOption = None,
    dry_run: DryRunOption = False,
    allow_deletes: Annotated[
        bool,
        typer.Option(
            "--allow-deletes", help="Delete also where more is missing than zoho.deletes_percent_max."
        ),
    ] = False,
    by: ByOption = "",
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Read every record's change time, queue what is new or different, and delete what the source does not have."""
    return _sync(
        environment, Kind.FULL, entity, dry_run=dry_run, by=by, json=json, plain=plain, deletes=allow_deletes
    )


@sync_app.command("incremental", short_help="read what changed since the last one")
def incremental(
    environment: EnvironmentOption,
    entity: EntitiesOption = None,
    dry_run: DryRunOption = False,
    by: ByOption = "",
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Queue what changed at the source since the last sync, with an overlap. The first one reads everything."""
    return _sync(environment, Kind.INCREMENTAL, entity, dry_run=dry_run, by=by, json=json, plain=plain)


@sync_app.command("stock", short_help="read the stock of every item")
def stock(
    environment: EnvironmentOption,
    dry_run: DryRunOption = False,
    by: ByOption = "",
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Queue the stock of items where it differs: a sale changes it without a webhook."""
    return _sync(environment, Kind.STOCK, None, dry_run=dry_run, by=by, json=json, plain=plain)


@sync_app.command("status", short_help="show how far the newest sync of each kind is")
def status(environment: EnvironmentOption, json: JsonOption = False) -> int:
    """Show the newest sync of each kind, with its counts. Exit code 4 if one waits or has stopped."""

    async def execute() -> int:
        async def look(database: AsyncEngine, settings: Environment) -> int:
            name = settings.name
            await raise_if_no_ledger(database, settings)
            found = [run for kind in Kind if (run := await runs.newest(database, name, kind)) is not None]
            steps = {run.id: await progress.steps(database, run.id) for run in found}
            if json:
                print_json({"syncs": [{"run": run, "steps": steps[run.id]} for run in found]})
            else:
                for run in found:
                    said = run.sentence or "no result yet"
                    if run.state is runs.State.RUNNING and not await runs.is_carried(database, run):
                        said = f"its process has ended; `runbook sync {run.kind}` goes on with it"
                    console().print(f"{run.kind} {run.id}: {run.state}, {said}")
                    for step in steps[run.id]:
                        console().print(f"  {_line(step)}")
                if not found:
                    console().print(f"{name} was never synced")
            open_ = [run for run in found if run.state in (runs.State.WAITING, runs.State.STOPPED)]
            return ExitCode.HELD if open_ else ExitCode.GOOD

        return await with_database(environment, look)

    return asyncio.run(execute())


def _sync(
    environment: str,
    kind: Kind,
    names: list[str] | None,
    *,
    dry_run: bool,
    by: str,
    json: bool,
    plain: bool,
    deletes: bool = False,
) -> int:
    entities = entities_of(kind, [parse_entity(name) for name in names or ()])
    if dry_run:
        return _preview(environment, kind, entities, json=json)
    # Imported here, because Prefect takes longer to import than a dry run has to do.
    from flows.sync import carry

    async def execute() -> Outcome:
        carrying = asyncio.create_task(
            carry(environment, kind, entities, by=requester(by), deletes_all=deletes)
        )
        if not json:
            watching = asyncio.create_task(_show(environment, kind, plain=plain))
            await asyncio.wait({carrying, watching}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({carrying})
            watching.cancel()
            with suppress(asyncio.CancelledError, RunbookError):
                await watching
        return await carrying

    outcome = asyncio.run(execute())
    if json:
        print_json(outcome)
    else:
        out = console(plain=plain)
        for step in outcome.steps:
            out.print(_line(step))
        out.print(f"{outcome.state}: {outcome.sentence}")
    return outcome.exit_code


async def _show(environment: str, kind: Kind, *, plain: bool) -> None:
    """A bar for each entity type, from the ledger, until it is cancelled. Nothing of it is kept in a pipe."""
    out = console(plain=plain)
    if not out.is_terminal:
        return
    settings = await last_good(environment)
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )
    began = monotonic()
    async with open_core(settings) as core:
        with Progress(*columns, console=out, transient=True) as bars:
            tasks: dict[EntityType, TaskID] = {}
            while True:
                with suppress(RunbookError):
                    run = await runs.newest(core.database, settings.name, kind)
                    for step in await progress.steps(core.database, run.id) if run is not None else []:
                        if step.entity not in tasks:
                            tasks[step.entity] = bars.add_task(step.entity, told="")
                        bars.update(
                            tasks[step.entity],
                            total=max(step.expected or step.listed + 1, step.listed),
                            completed=step.listed,
                            told=_told(step, monotonic() - began),
                        )
                await asyncio.sleep(_LOOK_SECONDS)


def _told(step: Step, seconds: float) -> str:
    """The counts of an entity type, with an estimate where the last full sync says how many records there are."""
    told = f"{step.listed} found, {step.queued} queued"
    if step.stage is Stage.DONE:
        return f"{told}, done"
    if step.stage is Stage.REMOVING:
        return f"{told}, looking for deletes"
    if step.expected and step.listed and step.expected > step.listed and step.number == 1:
        left = seconds / step.listed * (step.expected - step.listed)
        return f"{told}, about {left / 60:.0f} min left"
    return told


def _line(step: Step) -> str:
    counts = f"{step.listed} found, {step.read} read, {step.queued} queued, {step.deleted} deleted"
    unreadable = f", {step.unreadable} not readable" if step.unreadable else ""
    doubt = f": {step.sentence}" if step.sentence else ""
    return f"{step.entity:<16} {step.stage:<9} {counts}{unreadable}{doubt}"


def _preview(environment: str, kind: Kind, entities: Sequence[EntityType], *, json: bool) -> int:
    async def execute() -> list[Preview]:
        async with open_core(await last_good(environment)) as core:
            return await preview(core, kind, entities)

    found = asyncio.run(execute())
    if json:
        print_json({"kind": kind, "would": found, "done": False})
        return ExitCode.GOOD
    for each in found:
        console().print(
            f"{each.entity:<16} {each.listed} listed: {each.new} new, {each.changed} changed, "
            f"{each.drifted} drifted, {each.missing} missing at the source, {each.unreadable} not readable"
        )
        for example in each.examples:
            console().print(f"    {example}")
    console().print("nothing was changed")
    return ExitCode.GOOD
