"""The commands `runbook queue show` and `runbook queue list`: look at the queue by hand. They change nothing."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer
from rich.live import Live
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from flows.cli.app import queue_app
from flows.cli.look_text import event_lines, listed_lines, queue_line, queue_lines
from flows.cli.options import (
    EnvironmentOption,
    JsonOption,
    PlainOption,
    SinceOption,
    parse_entity,
    parse_event,
    parse_span,
    parse_status,
)
from flows.cli.output import console, failure, print_json
from flows.cli.session import open_database
from handlers.database import clock, migrate
from handlers.database.privileges import obstacles
from handlers.database.transaction import transaction
from handlers.environment.last_good import last_good
from handlers.environment.model import Environment
from handlers.erp.controller_needs import QUEUE_NEED
from handlers.errors import LEDGER_AWAY, ExitCode, Refused
from handlers.measurements import queue_view
from handlers.measurements.queue_view import QueueView
from handlers.queue import listing
from handlers.queue.as_csv import as_csv
from handlers.queue.listing import Filter
from handlers.status import one_event

LOOK_SECONDS = 5.0
"""How often --watch looks."""
LIST_MAX = 50_000
COLUMNS = (
    "id",
    "entity",
    "key",
    "status",
    "attempts",
    "created_at",
    "started_at",
    "completed_at",
    "error_code",
    "error",
)


@queue_app.command("show", short_help="count it by status, with what failed; or show one event")
def show(
    environment: EnvironmentOption,
    event: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="Show this event: who has it, what it waits for, what came of it."
        ),
    ] = None,
    since: SinceOption = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every 5 s, until Ctrl-C.")] = False,
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Count the queue by status, with the bars that are broken, the dead letters by error, and what failed last.

    With --since only what came or was taken since then counts. With an ID: everything about one event, but no value
    of its payload.
    """
    span = timedelta(seconds=parse_span(since, least="1s")) if since else None
    if event is not None:
        if watch or since:
            raise Refused("an event is shown as it is now: leave out --watch and --since")
        return asyncio.run(_show_event(environment, parse_event(event), json=json, plain=plain))
    try:
        return asyncio.run(_show(environment, span, watch=watch, json=json, plain=plain))
    except KeyboardInterrupt:
        if not watch:
            raise
        return ExitCode.GOOD


@queue_app.command("list", short_help="list events by status, type, error or record")
def list_(
    environment: EnvironmentOption,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", help="Only this status; may be repeated. Default: all.", show_default=False),
    ] = None,
    entity: Annotated[
        list[str] | None,
        typer.Option("--entity", help="Only this entity type; may be repeated.", show_default=False),
    ] = None,
    error: Annotated[
        str, typer.Option("--error", help="Only with this error: its code, or a part of its text.")
    ] = "",
    key: Annotated[str, typer.Option("--key", help="Only of this record: its id at the source.")] = "",
    since: SinceOption = "",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=LIST_MAX, help="How many events, the newest ones.")
    ] = 20,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a line of column names.")] = False,
    json: JsonOption = False,
) -> int:
    """List events, newest first, with their errors masked. With --since what came or was taken since then."""
    if csv and json:
        raise Refused("--csv and --json are two forms of one list: give one of them")
    statuses = tuple(parse_status(name) for name in status or ())
    entities = tuple(parse_entity(name) for name in entity or ())
    span = timedelta(seconds=parse_span(since, least="1s")) if since else None

    async def execute() -> int:
        async with open_database(await last_good(environment)) as database, transaction(database) as tx:
            await _raise_if_denied(tx)
            async with listing.limited(tx):
                wanted = Filter(
                    statuses=statuses,
                    entities=entities,
                    error=error,
                    key=key,
                    since=await _since(tx, span),
                )
                found = await listing.find(tx, wanted, limit + 1)
        events, more = found[:limit], len(found) > limit
        if json:
            print_json({"events": events, "more": more})
        elif csv:
            sys.stdout.write(as_csv(COLUMNS, ([getattr(each, name) for name in COLUMNS] for each in events)))
        else:
            for line in listed_lines(events, more=more):
                console().print(line)
        return ExitCode.GOOD

    return asyncio.run(execute())


async def _show(environment: str, span: timedelta | None, *, watch: bool, json: bool, plain: bool) -> int:
    settings = await last_good(environment)
    async with open_database(settings) as database:
        view = await _look(database, settings, span)
        if not watch:
            if json:
                print_json(view)
            else:
                for line in queue_lines(view):
                    console(plain=plain).print(line)
            return ExitCode.GOOD
        out = console(plain=plain)
        if json or not out.is_terminal:
            return await _follow(database, settings, span, view, json=json)
        with Live(console=out, auto_refresh=False) as live:
            text = "\n".join(queue_lines(view, out.size.height - 1))
            while True:
                live.update(text, refresh=True)
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    view = await _look(database, settings, span)
                    text = "\n".join(queue_lines(view, out.size.height - 1))
                except LEDGER_AWAY as error:
                    text = f"{error}\nLooking again every {LOOK_SECONDS:g} s; this is what was last:\n" + text


async def _follow(
    database: AsyncEngine,
    settings: Environment,
    span: timedelta | None,
    view: QueueView | None,
    *,
    json: bool,
) -> int:
    """One line, or one object, for each look."""
    shown: set[tuple[UUID, datetime]] = set()
    while True:
        if view is not None and json:
            print_json(view)
        elif view is not None:
            for line in queue_line(view, shown):
                console(plain=True).print(line)
            sys.stdout.flush()
        await asyncio.sleep(LOOK_SECONDS)
        try:
            view = await _look(database, settings, span)
        except LEDGER_AWAY as error:
            # Whoever watches wants to see it come back.
            view = None
            if json:
                print_json(failure(str(error), error.exit_code))
            else:
                sys.stderr.write(f"runbook: {error}\n")


async def _look(database: AsyncEngine, settings: Environment, span: timedelta | None) -> QueueView:
    has_ledger = not await migrate.pending(database)
    async with transaction(database) as tx:
        await _raise_if_denied(tx)
        async with listing.limited(tx):
            return await queue_view.read(tx, settings, await _since(tx, span), has_ledger=has_ledger)


async def _show_event(environment: str, id_: UUID, *, json: bool, plain: bool) -> int:
    settings = await last_good(environment)
    async with open_database(settings) as database, transaction(database) as tx:
        await _raise_if_denied(tx)
        async with listing.limited(tx):
            view = await one_event.read(tx, id_)
    if json:
        print_json(view)
    else:
        for line in event_lines(view, settings.heal.tries_max):
            console(plain=plain).print(line)
    return ExitCode.GOOD


async def _raise_if_denied(tx: AsyncConnection) -> None:
    if denied := (await obstacles(tx, [QUEUE_NEED])).denied:
        # Row security does not refuse: the queue would only look empty.
        raise Refused("; ".join(denied))


async def _since(tx: AsyncConnection, span: timedelta | None) -> datetime | None:
    return None if span is None else await clock.now(tx) - span
