"""Applying a batch of events of one type: read the stored rows, fold, write; one statement for each table.

All checks of payloads run before the first write. Errors of the database are raised with the records whose rows it
refuses, and the worker retries the batch without them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.sqlstate import UNIQUE_VIOLATION, sqlstate
from handlers.entities import statements
from handlers.entities.base import AHEAD_MAX, Handler, Handlers
from handlers.entities.document import Refusal
from handlers.entities.numbers import assign, positions, unique_columns
from handlers.entities.registry import HANDLERS
from handlers.entities.resolve import (
    Ids,
    MappedEvent,
    Row,
    StoredRow,
    all_wait,
    map_event,
    missing_parents,
    resolve,
)
from handlers.entities.spec import Mapped
from handlers.entities.stored_rows import read_rows
from handlers.entities.write import write
from handlers.queue.event import DRAIN_ORDER, EntityType, Event, Outcome, Result

_ROUNDS_MAX = 5
"""Rows that another worker inserted concurrently are read again; more rounds than this indicate a bug."""
_TAKEN_ROUNDS = 2
"""After so many rounds that found a number taken, the rows are sent one by one."""
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
    by_key, results = await _map_events(tx, handler, events)
    await look_up(tx, (mapped.mapped for group in by_key.values() for mapped in group), ids, handlers)
    uniques = await unique_columns(tx, handler)
    open_keys = sorted(by_key)
    for number in range(_ROUNDS_MAX):
        stored_rows = await read_rows(tx, handler, open_keys, by_key, positions(uniques))
        rows, resolved = await _resolve_all(
            tx, handler, {key: by_key[key] for key in open_keys}, stored_rows, ids=ids, handlers=handlers
        )
        results |= resolved
        assigned = await assign(tx, handler, uniques, rows)
        results |= assigned.waiting
        # A number that another worker takes at this moment is seen in the next round.
        raise_taken = bool(uniques) and number < _TAKEN_ROUNDS
        try:
            async with tx.begin_nested() if raise_taken and assigned.rows else nullcontext():
                ids_by_key = await write(
                    tx,
                    handler,
                    assigned.rows,
                    ids,
                    given_up=assigned.given_up,
                    raise_taken=raise_taken,
                    alone=alone,
                )
        except DBAPIError as error:
            if not raise_taken or sqlstate(error) != UNIQUE_VIOLATION:
                raise
            continue
        ids_by_key |= {key: stored_row.id for key, stored_row in stored_rows.items()}
        ids.setdefault(handler.entity, {}).update(ids_by_key)
        results |= _waiting_but_written(assigned.rows, results, ids_by_key)
        open_keys = [row.key for row in assigned.rows if row.key not in ids_by_key]
        if not open_keys:
            return _with_targets(events, results, ids[handler.entity])
    raise RuntimeError(
        f"{handler.table.name}: rows are inserted concurrently in every round: {open_keys[:3]}"
    )


async def _resolve_all(
    tx: AsyncConnection,
    handler: Handler,
    by_key: Mapping[str, list[MappedEvent]],
    stored_rows: Mapping[str, StoredRow],
    *,
    ids: Ids,
    handlers: Handlers,
) -> tuple[list[Row], dict[UUID, Result]]:
    """The rows to write and the results of all events. The parents of the folded record count, not only the events'.

    A deleted record may have been stored before its parents. A part that restores it must wait for them.
    """
    rows: list[Row] = []
    results: dict[UUID, Result] = {}
    doubtful = list(by_key)
    for deletes_wait in (False, True):
        resolved = [
            resolve(handler, by_key[key], stored_rows.get(key), ids, deletes_wait=deletes_wait)
            for key in doubtful
        ]
        # A folded record may reference parents that are not in this batch.
        await look_up(tx, (row.mapped for row, _ in resolved if row is not None), ids, handlers)
        doubtful = []
        for row, row_results in resolved:
            results |= row_results
            orphaned = (
                row is not None and row.folded.deleted_at is None and missing_parents(row.mapped, ids) != []
            )
            if row is None:
                continue
            if not orphaned:
                rows.append(row)
            elif deletes_wait:
                results |= all_wait(row, ids)
            else:
                doubtful.append(row.key)
        if not doubtful:
            break
    # In key order, in which all workers lock rows.
    return sorted(rows, key=lambda row: row.key), results


def _waiting_but_written(
    rows: Iterable[Row], results: Mapping[UUID, Result], ids_by_key: Mapping[str, str]
) -> dict[UUID, Result]:
    """The results of waiting events, with the id of their row if it was written: what waits for it can go on."""
    return {
        id_: results[id_]._replace(target=ids_by_key[row.key])
        for row in rows
        if row.key in ids_by_key and (row.existing is None or row.folded.changed)
        for id_ in row.events
        if results[id_].outcome is Outcome.WAITING
    }


async def _map_events(
    tx: AsyncConnection, handler: Handler, events: Sequence[Event]
) -> tuple[dict[str, list[MappedEvent]], dict[UUID, Result]]:
    """The mapped events by record key, and the results of events with a refused payload."""
    by_key: dict[str, list[MappedEvent]] = defaultdict(list)
    refused: dict[UUID, Result] = {}
    ahead: list[MappedEvent] = []
    for number, event in enumerate(events, start=1):
        if not number % _READ_AT_ONCE:
            # Let a concurrent batch send its next statement to the database.
            await asyncio.sleep(0)
        try:
            mapped = map_event(handler, event)
        except Refusal as refusal:
            refused[event.id] = _refused(refusal)
        else:
            if mapped.change.stamp - event.created_at <= AHEAD_MAX:
                by_key[event.key].append(mapped)
            else:
                ahead.append(mapped)
    if ahead:
        now = (await handler.execute_with_context(tx, statements.NOW)).scalar_one()
        for mapped in ahead:
            future = handler.future_stamp(mapped.record.data, mapped.change.stamp, now)
            if future is None:
                by_key[mapped.event.key].append(mapped)
            else:
                refused[mapped.event.id] = _refused(future)
    return by_key, refused


def _refused(refusal: Refusal) -> Result:
    return Result(outcome=Outcome.REFUSED, reason=str(refusal), field=refusal.field)


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
