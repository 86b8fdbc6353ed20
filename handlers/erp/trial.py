"""Trying payloads: what the handlers would do with each record, in a transaction that is rolled back.

Each record is tried alone, against the current tables: parents in the same call do not count, and an older version of
a record in another file does not matter. A record that would wait is shown with its row.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database import clock
from handlers.database.sqlstate import NOT_ADOPTED, is_away, message_of, sqlstate
from handlers.database.transaction import translated_errors
from handlers.entities import spec, statements, write
from handlers.entities.apply import apply_events, look_up
from handlers.entities.base import Handlers
from handlers.entities.document import Refusal, dump
from handlers.entities.envelope import Record
from handlers.entities.registry import HANDLERS, unwrap_each
from handlers.entities.resolve import Ids, build, map_event, merge_versions
from handlers.entities.rows import pack
from handlers.entities.stored_rows import read_rows
from handlers.errors import Refused
from handlers.queue.diagnose import Diagnosis, diagnose
from handlers.queue.event import EntityType, Event, Operation, Outcome, Result


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The outcome that one record would have.

    A number in *row* is a JSON number when a double keeps every digit, otherwise text. Dates and times are ISO, in UTC.
    The rows of a child table are listed under its name.
    """

    file: str
    entity: EntityType
    key: str | None
    """None when the body has no record, or a record without an id."""
    outcome: Outcome
    reason: str = ""
    field: str | None = None
    row: Mapping[str, Any] | None = None
    """The row that would be stored, also for a record that would wait for a parent; None when refused."""


async def try_bodies(
    database: AsyncEngine,
    entity: EntityType,
    bodies: Iterable[tuple[str, str | Refusal]],
    *,
    handlers: Handlers = HANDLERS,
) -> AsyncGenerator[Trial, None]:
    """Try every record of every (file, text) pair, in order, in a transaction that is rolled back.

    A body that could not be read is given as a Refusal instead of the text, and is reported like any other refusal.
    """
    with translated_errors(database):
        async with database.connect() as tx:
            await tx.execute(text("SET LOCAL timezone TO 'UTC'"))
            for file, body in bodies:
                for record in _records(entity, body):
                    if isinstance(record, Refusal):
                        yield _refused(file, entity, None, str(record), record.field)
                    else:
                        yield await _try(tx, file, entity, record.data, handlers)
            await tx.rollback()


def _records(entity: EntityType, body: str | Refusal) -> list[Record | Refusal]:
    if isinstance(body, Refusal):
        return [body]
    try:
        return unwrap_each(entity, body)
    except Refusal as refusal:
        return [refusal]


async def _try(
    tx: AsyncConnection, file: str, entity: EntityType, data: spec.Data, handlers: Handlers
) -> Trial:
    try:
        key = handlers[entity].source_key(data)
    except Refusal as refusal:
        return _refused(file, entity, None, str(refusal), refusal.field)
    event = _event(entity, key, data, await clock.now(tx))
    savepoint = await tx.begin_nested()
    try:
        result = (await apply_events(tx, [event], handlers=handlers))[event.id]
        row = await _row(tx, event, result, handlers)
    except DBAPIError as error:
        diagnosis = _diagnose_or_raise(error)
        return _refused(file, entity, key, f"the database refuses it: {diagnosis.message}", diagnosis.field)
    finally:
        if savepoint.is_active:
            await savepoint.rollback()
    return Trial(
        file=file,
        entity=entity,
        key=key,
        outcome=result.outcome,
        reason=result.reason,
        field=result.field,
        row=row,
    )


def _event(entity: EntityType, key: str, data: spec.Data, at: datetime) -> Event:
    return Event(
        id=uuid4(),
        entity=entity,
        key=key,
        operation=Operation.UPSERT,
        payload=dump(data),
        attempt=1,
        attempts_max=1,
        created_at=at,
    )


def _diagnose_or_raise(error: DBAPIError) -> Diagnosis:
    """Why the database refuses the record. Raises errors that are not caused by the record."""
    if is_away(error):
        raise error
    if sqlstate(error) in NOT_ADOPTED:
        raise Refused(
            f"the ERP's tables lack what the handlers need ({message_of(error)}): run `runbook db adopt`"
        ) from error
    return diagnose(error)


def _refused(file: str, entity: EntityType, key: str | None, reason: str, field: str | None) -> Trial:
    return Trial(file=file, entity=entity, key=key, outcome=Outcome.REFUSED, reason=reason, field=field)


async def _row(
    tx: AsyncConnection, event: Event, result: Result, handlers: Handlers
) -> dict[str, Any] | None:
    if result.outcome is Outcome.REFUSED:
        return None
    if result.outcome is Outcome.WAITING:
        return await _projected(tx, event, handlers)
    return await _stored(tx, event, handlers)


async def _stored(tx: AsyncConnection, event: Event, handlers: Handlers) -> dict[str, Any] | None:
    """The current row in the database with its lines; None when there is none."""
    table = handlers[event.entity].table
    row_text = (await tx.execute(statements.row(table), {"key": event.key})).scalar()
    if row_text is None:
        return None
    row = _plain(row_text)
    for child in table.children:
        lines = (await tx.execute(statements.rows_of(child, table), {"key": event.key})).scalars()
        row[child.name] = [_plain(line) for line in lines]
    return row


async def _projected(tx: AsyncConnection, event: Event, handlers: Handlers) -> dict[str, Any]:
    """The row that would be stored if its parents existed: the current row, updated with the event."""
    handler = handlers[event.entity]
    version = map_event(handler, event)
    ids: Ids = {}
    stored = (await read_rows(tx, handler, [event.key], {event.key: [version]})).get(event.key)
    row = build(handler, [version], merge_versions([version], stored), stored)
    await look_up(tx, [row.mapped], ids, handlers)
    projected = await tx.execute(
        statements.project(handler.table), pack(write.arrays_of(handler, [row], ids))
    )
    shown = _plain(projected.scalar_one())
    for at in row.mapped.missing:
        shown.pop(handler.table.columns[at].name, None)
    current = await _stored(tx, event, handlers) or {}
    shown = {**dict.fromkeys(column.name for column in handler.table.columns), **current, **shown}
    for child in handler.table.children:
        shown.setdefault(child.name, [])
        if child.name in row.mapped.children:
            arrays = write.line_arrays(child, [("0", row.mapped.children[child.name])], ids)
            if arrays is not None:
                lines = (await tx.execute(statements.project_lines(child), pack(arrays))).scalars()
                shown[child.name] = [_plain(line) for line in lines]
    return shown


def _plain(row_text: str) -> dict[str, Any]:
    """A row from JSON text, without losing a digit."""
    row: dict[str, Any] = json.loads(row_text, parse_float=_number)
    return row


def _number(literal: str) -> float | str:
    as_double = float(literal)
    return as_double if Decimal(repr(as_double)) == Decimal(literal) else literal
