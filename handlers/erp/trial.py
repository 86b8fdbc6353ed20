"""Trying bodies: what the core would do with each record, without keeping anything.

Each record is tried on its own, against the tables as they are: parents that stand in the same call do not
count, and the same record in another file does not make this one look old. A record that would wait still
shows its row.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.sqlstate import NOT_ADOPTED, is_away, message_of, sqlstate
from handlers.database.transaction import translated_errors
from handlers.entities import spec, statements, write
from handlers.entities.apply import apply_events, look_up, read_rows
from handlers.entities.base import Handlers
from handlers.entities.document import Refusal, dump
from handlers.entities.envelope import Record
from handlers.entities.registry import HANDLERS, unwrap_each
from handlers.entities.resolve import Ids, build, map_event, merge_versions
from handlers.entities.rows import pack
from handlers.errors import Refused
from handlers.queue.diagnose import Diagnosis, diagnose
from handlers.queue.event import EntityType, Event, Operation, Outcome, Result


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What would become of one record.

    Numbers in *row* are JSON numbers where a double prints back as the same decimal, and text where it
    would not; dates are ISO, instants ISO in UTC. The rows of child tables hang in it under the tables'
    names.
    """

    file: str
    entity: EntityType
    key: str | None
    """None where the body holds no record, or one without an id."""
    outcome: Outcome
    reason: str = ""
    field: str | None = None
    row: Mapping[str, Any] | None = None
    """The row as it would stand, also while it waits for a parent; None when refused."""


async def try_bodies(
    database: AsyncEngine,
    entity: EntityType,
    bodies: Iterable[tuple[str, str | Refusal]],
    *,
    handlers: Handlers = HANDLERS,
) -> AsyncGenerator[Trial, None]:
    """Try every record of every (file, text) pair, in order, in a transaction that is rolled back.

    A refusal in place of the text says why there is none; it is told like any other.
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
    event = _event(entity, key, data)
    savepoint = await tx.begin_nested()
    try:
        result = (await apply_events(tx, [event], handlers=handlers))[event.id]
        row = await _row(tx, event, result, handlers)
    except DBAPIError as error:
        diagnosis = _refusal_of_the_database(error)
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


def _event(entity: EntityType, key: str, data: spec.Data) -> Event:
    return Event(
        id=uuid4(),
        entity=entity,
        key=key,
        operation=Operation.UPSERT,
        payload=dump(data),
        attempt=1,
        attempts_max=1,
        created_at=datetime.now(UTC),
    )


def _refusal_of_the_database(error: DBAPIError) -> Diagnosis:
    """What the database says against the record. Raises what is no fault of any record."""
    if is_away(error):
        raise error
    if sqlstate(error) in NOT_ADOPTED:
        raise Refused(
            f"the ERP's tables are not ready for the core ({message_of(error)}): see runbook db adopt --dry-run"
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
    """The row as it is in the database now, with its lines; None where there is none."""
    table = handlers[event.entity].table
    found = (await tx.execute(statements.row(table), {"key": event.key})).scalar()
    if found is None:
        return None
    row = _plain(found)
    for child in table.children:
        lines = (await tx.execute(statements.rows_of(child, table), {"key": event.key})).scalars()
        row[child.name] = [_plain(line) for line in lines]
    return row


async def _projected(tx: AsyncConnection, event: Event, handlers: Handlers) -> dict[str, Any]:
    """The row as it would stand if its parents were there: what is stored, overlaid with what the event
    says."""
    handler = handlers[event.entity]
    arrival = map_event(handler, event)
    ids: Ids = {}
    found = (await read_rows(tx, handler, [event.key], {event.key: [arrival]})).get(event.key)
    row = build(handler, [arrival], merge_versions([arrival], found), found)
    await look_up(tx, [row.mapped], ids, handlers)
    message_of = await tx.execute(
        statements.project(handler.table), pack(write.arrays_of(handler, [row], ids))
    )
    shown = _plain(message_of.scalar_one())
    for at in row.mapped.missing:
        shown.pop(handler.table.columns[at].name, None)
    before = await _stored(tx, event, handlers) or {}
    shown = {**dict.fromkeys(column.name for column in handler.table.columns), **before, **shown}
    for child in handler.table.children:
        shown.setdefault(child.name, [])
        if child.name in row.mapped.children:
            arrays = write.line_arrays(child, [("0", row.mapped.children[child.name])], ids)
            if arrays is not None:
                lines = (await tx.execute(statements.project_lines(child), pack(arrays))).scalars()
                shown[child.name] = [_plain(line) for line in lines]
    return shown


def _plain(found: str) -> dict[str, Any]:
    """A row as JSON can carry it without losing a digit."""
    row: dict[str, Any] = json.loads(found, parse_float=_number)
    return row


def _number(literal: str) -> float | str:
    as_double = float(literal)
    return as_double if Decimal(repr(as_double)) == Decimal(literal) else literal
