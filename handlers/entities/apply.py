"""Applying a batch of events of one type: read the stored rows, fold, write; one statement for each table.

All checks of payloads run before the first write. Errors of the database are raised with the records whose rows it
refuses, and the worker retries the batch without them.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row as SqlRow
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.entities import statements
from handlers.entities.base import Handler, Handlers
from handlers.entities.document import Refusal
from handlers.entities.fold import Stored
from handlers.entities.registry import HANDLERS
from handlers.entities.resolve import Ids, MappedEvent, Row, StoredRow, map_event, resolve
from handlers.entities.spec import Mapped
from handlers.entities.write import write
from handlers.queue.event import DRAIN_ORDER, EntityType, Event, Outcome, Result

_ROUNDS_MAX = 5
"""Rows that another worker inserted concurrently are read again; more rounds than this indicate a bug."""
_READ_AT_ONCE = 50
_APPLIED = Result(Outcome.APPLIED)


async def apply_kind(
    tx: AsyncConnection,
    handler: Handler,
    events: Sequence[Event],
    ids: Ids,
    handlers: Handlers,
    *,
    alone: bool = False,
) -> dict[UUID, Result]:
    """Apply all events of one type, and add to *ids* the rows that later types may reference.

    Raises RowsRefused when the database refuses rows, unless the event is *alone* in its batch: see `write.write`.
    """
    by_key, results = await _map_events(handler, events)
    await look_up(tx, (mapped.mapped for group in by_key.values() for mapped in group), ids, handlers)
    open_keys = sorted(by_key)
    for _ in range(_ROUNDS_MAX):
        stored_rows = await read_rows(tx, handler, open_keys, by_key)
        rows: list[Row] = []
        for key in open_keys:
            row, resolved = resolve(handler, by_key[key], stored_rows.get(key), ids)
            results |= resolved
            if row is not None:
                rows.append(row)
        # A folded record may reference parents that are not in this batch.
        await look_up(tx, (row.mapped for row in rows), ids, handlers)
        ids_by_key = await write(tx, handler, rows, ids, alone=alone)
        ids_by_key |= {key: stored_row.id for key, stored_row in stored_rows.items()}
        ids.setdefault(handler.entity, {}).update(ids_by_key)
        open_keys = [row.key for row in rows if row.key not in ids_by_key]
        if not open_keys:
            return _with_targets(events, results, ids[handler.entity])
    raise RuntimeError(
        f"{handler.table.name}: rows are inserted concurrently in every round: {open_keys[:3]}"
    )


async def _map_events(
    handler: Handler, events: Sequence[Event]
) -> tuple[dict[str, list[MappedEvent]], dict[UUID, Result]]:
    """The mapped events by record key, and the results of events with a refused payload."""
    by_key: dict[str, list[MappedEvent]] = defaultdict(list)
    refused: dict[UUID, Result] = {}
    for number, event in enumerate(events, start=1):
        if not number % _READ_AT_ONCE:
            # Let a concurrent batch send its next statement to the database.
            await asyncio.sleep(0)
        try:
            mapped = map_event(handler, event)
        except Refusal as refusal:
            refused[event.id] = Result(outcome=Outcome.REFUSED, reason=str(refusal), field=refusal.field)
        else:
            by_key[event.key].append(mapped)
    return by_key, refused


def _with_targets(
    events: Sequence[Event], results: Mapping[UUID, Result], targets: Mapping[str, str]
) -> dict[UUID, Result]:
    """The results; applied ones get the id of the ERP's row."""
    return {
        event.id: Result(Outcome.APPLIED, target=targets.get(event.key))
        if results[event.id] == _APPLIED
        else results[event.id]
        for event in events
    }


async def look_up(tx: AsyncConnection, records: Iterable[Mapped], ids: Ids, handlers: Handlers) -> None:
    """Add to *ids* the parents that are not in it yet: one query for each parent table."""
    missing_keys: dict[EntityType, set[str]] = defaultdict(set)
    for record in records:
        for parent in record.parents:
            if parent.key not in ids.setdefault(parent.entity, {}):
                missing_keys[parent.entity].add(parent.key)
    for entity, keys in missing_keys.items():
        parent_handler = handlers[entity]
        rows = await parent_handler.execute_with_context(
            tx, statements.ids(parent_handler.table), {"key": sorted(keys)}
        )
        ids[entity].update({row.key: row.id for row in rows})


async def read_rows(
    tx: AsyncConnection, handler: Handler, keys: list[str], by_key: Mapping[str, list[MappedEvent]]
) -> dict[str, StoredRow]:
    """Lock and read the rows of *keys*; adopt rows that the old code wrote without the source's id."""
    if not keys:
        return {}
    single = [by_key[key][0] if len(by_key[key]) == 1 else None for key in keys]
    parameters = {
        "key": keys,
        "stamp": [version.change.stamp.isoformat() if version else None for version in single],
        # Only a single change, not a delete, can be decided by its stamp alone.
        "shape": [version.shape if version and not version.change.deleted else None for version in single],
    }
    rows = await handler.execute_with_context(tx, statements.read(handler.table), parameters)
    stored_rows = {row.key: _stored_row(row) for row in rows}
    natural_keys = _natural_keys(handler, [key for key in keys if key not in stored_rows], by_key)
    if natural_keys:
        adopted = await handler.execute_with_context(
            tx,
            statements.recognise(handler.table),
            {"key": list(natural_keys), "natural": list(natural_keys.values())},
        )
        if adopted.all():
            rows = await handler.execute_with_context(tx, statements.read(handler.table), parameters)
            stored_rows = {row.key: _stored_row(row) for row in rows}
    return stored_rows


def _stored_row(row: SqlRow[Any]) -> StoredRow:
    stored = None
    if row.stamp is not None and row.data is not None:
        versions = json.loads(row.versions) if row.versions else {}
        stored = Stored(
            stamp=row.stamp,
            deleted_at=row.deleted_at,
            data=json.loads(row.data, parse_float=Decimal),
            versions={
                key: (datetime.fromisoformat(stamp), digest) for key, (stamp, digest) in versions.items()
            },
        )
    return StoredRow(
        id=row.id, stamp=row.stamp, deleted_at=row.deleted_at, covered=row.covered, stored=stored
    )


def _natural_keys(
    handler: Handler, keys: Iterable[str], by_key: Mapping[str, list[MappedEvent]]
) -> dict[str, str]:
    position = handler.table.natural_at
    if position is None:
        return {}
    numbers = {key: by_key[key][0].mapped.values[position] for key in keys}
    return {key: number for key, number in numbers.items() if number is not None}


async def apply_events(
    tx: AsyncConnection, events: Sequence[Event], *, handlers: Handlers = HANDLERS
) -> dict[UUID, Result]:
    """Apply a batch inside the caller's transaction, parents before children; one result for each event.

    A payload that the mapping refuses does not affect the others. An error of the database is raised, as RowsRefused
    with the refused records where they are known: the caller rolls back and retries without them.
    """
    by_kind: dict[EntityType, list[Event]] = defaultdict(list)
    for event in events:
        by_kind[event.entity].append(event)
    ids: Ids = {}
    results: dict[UUID, Result] = {}
    for entity in DRAIN_ORDER:
        if entity in by_kind:
            alone = len(events) == 1
            results |= await apply_kind(tx, handlers[entity], by_kind[entity], ids, handlers, alone=alone)
    return results
