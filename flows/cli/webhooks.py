"""The commands about single webhooks: send a test one, or wait for a real one."""

from __future__ import annotations

import asyncio
from datetime import datetime
from time import monotonic
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import app
from flows.cli.look_text import wrapped
from flows.cli.options import EnvironmentOption, JsonOption, parse_entity, parse_span
from flows.cli.output import console, print_json
from flows.cli.session import open_database
from handlers.core import open_core
from handlers.database import clock
from handlers.database.transaction import transaction
from handlers.environment.last_good import last_good
from handlers.errors import LEDGER_AWAY, ExitCode, Refused
from handlers.phases import sent_webhook
from handlers.queue import arrivals
from handlers.queue.arrivals import Arrival
from handlers.queue.event import SETTLED, EntityType, Status
from handlers.status import one_event
from handlers.status.event_view import EventView

_POLL_SECONDS = 0.5


@app.command("send-test-webhook")
def send_test_webhook(
    environment: EnvironmentOption,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to follow it: 30s, 2m.")] = "60s",
    json: JsonOption = False,
) -> int:
    """Send a signed test webhook through the receiver, follow it to the ERP's row, and remove all of it.

    It is marked as synthetic: no count, gate or report has it as traffic. Exit code 4 when it did not get through.
    """
    seconds = _timeout(timeout)

    async def execute() -> int:
        async with open_core(await last_good(environment)) as core:
            sent = await sent_webhook.send(core, seconds)
        if json:
            print_json(sent)
        else:
            for stage in sent.stages:
                console().print(
                    "\n".join(wrapped(f"{stage.seconds:7.2f} s  {stage.name:<10} {stage.sentence}"))
                )
            console().print("\n".join(wrapped(sent.sentence)))
        return ExitCode.GOOD if sent.good else ExitCode.HELD

    return asyncio.run(execute())


@app.command("await-webhook")
def await_webhook(
    environment: EnvironmentOption,
    entity: Annotated[
        str, typer.Option("--entity", help="The type of the record that you change at the source.")
    ],
    key: Annotated[str, typer.Option("--key", help="Only this record: its id at the source.")] = "",
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait: 90s, 5m, 1h.")] = "5m",
    json: JsonOption = False,
) -> int:
    """Wait for a real webhook: change a record at the source now. Says when it arrived, and what came of it.

    Exit code 4 when none came in time, or when it was not applied.
    """
    entity_type = parse_entity(entity)
    seconds = _timeout(timeout)

    async def execute() -> int:
        async with open_database(await last_good(environment)) as database:
            since = await clock.now(database)
            if not json:
                what = f"{entity_type} {key}" if key else f"a {entity_type}"
                console().print(f"change {what} at the source now: waiting {timeout} for its webhook")
            deadline = monotonic() + seconds
            arrival = await _arrival(database, since, entity_type, key, deadline)
            view = await _end(database, arrival, deadline) if arrival is not None else None
        return _told(since, entity_type, view, timeout, json=json)

    return asyncio.run(execute())


async def _arrival(
    database: AsyncEngine, since: datetime, entity: EntityType, key: str, deadline: float
) -> Arrival | None:
    while True:
        try:
            async with transaction(database) as tx:
                if found := await arrivals.first_after(tx, since, entity, key):
                    return found
        except LEDGER_AWAY:
            # It may come back in time. A webhook that the receiver could not store is sent again.
            if monotonic() >= deadline:
                raise
        if monotonic() >= deadline:
            return None
        await asyncio.sleep(_POLL_SECONDS)


async def _end(database: AsyncEngine, arrival: Arrival, deadline: float) -> EventView:
    """The event when it is settled, or as it is at the end of the time."""
    while True:
        try:
            async with transaction(database) as tx:
                view = await one_event.read(tx, arrival.id)
            if view.status in SETTLED or monotonic() >= deadline:
                return view
        except LEDGER_AWAY:
            if monotonic() >= deadline:
                raise
        await asyncio.sleep(_POLL_SECONDS)


def _told(since: datetime, entity: EntityType, view: EventView | None, timeout: str, *, json: bool) -> int:
    good = view is not None and view.status is Status.COMPLETED
    if view is None:
        sentence = (
            f"no webhook of a {entity} came within {timeout}: is the rule at the source on, and does the receiver "
            "answer? A webhook that says nothing new is not queued"
        )
        stages: list[dict[str, object]] = []
    else:
        stages = _stages(since, view)
        if good:
            sentence = f"{view.outcome or 'completed'}, local id {view.local_id or 'unknown'}: {view.row}"
        elif view.status in SETTLED:
            sentence = f"it became {view.status}, {view.error_code}: {view.error}"
        else:
            waits = f", it waits for {'; '.join(view.waits_for)}" if view.waits_for else ""
            sentence = f"it is {view.status} at the end of {timeout}{waits}"
    if json:
        print_json({"good": good, "sentence": sentence, "stages": stages, "event": view})
    else:
        for stage in stages:
            console().print(
                "\n".join(wrapped(f"{stage['seconds']:7.2f} s  {stage['name']:<10} {stage['sentence']}"))
            )
        console().print("\n".join(wrapped(sentence)))
    return ExitCode.GOOD if good else ExitCode.HELD


def _stages(since: datetime, view: EventView) -> list[dict[str, object]]:
    """When it arrived, was taken and was completed: how long each took, by the database's clock."""
    verified = "signature verified" if view.verified else "its signature was not verified"
    times = [
        ("arrived", since, view.created_at, f"{view.entity} {view.key}, {verified}, event {view.id}"),
        (
            "taken",
            view.created_at,
            view.started_at,
            f"by {view.worker or 'a worker'}, attempt {view.attempts}",
        ),
        ("completed", view.started_at, view.completed_at, f"revision {view.revision[:7] or 'unknown'}"),
    ]
    return [
        {"name": name, "seconds": max(0.0, (at - before).total_seconds()), "at": at, "sentence": sentence}
        for name, before, at, sentence in times
        if at is not None and before is not None
    ]


def _timeout(text: str) -> float:
    try:
        return parse_span(text, least="1s")
    except Refused as error:
        raise Refused(str(error).replace("--since", "--timeout")) from None
