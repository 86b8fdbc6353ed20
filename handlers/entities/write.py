"""Writing the rows and lines of a batch, one statement for each table, and finding rows that the database refuses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import CursorResult
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.sqlstate import UNIQUE_VIOLATION, sqlstate
from handlers.entities import rows as row_sending
from handlers.entities import statements
from handlers.entities.base import Handler
from handlers.entities.resolve import Ids, Row
from handlers.entities.rows import Arrays, RowStatement
from handlers.entities.spec import Child, Lines
from handlers.entities.versions import stored_versions
from handlers.queue.diagnose import RowsRefused, diagnose
from handlers.queue.event import EntityType, ErrorClass

_RowWrite = tuple[RowStatement, Arrays, Sequence[str]]
"""A statement, its rows, and the record key of each row."""


async def write(
    tx: AsyncConnection,
    handler: Handler,
    rows: Sequence[Row],
    ids: Ids,
    *,
    given_up: Mapping[int, Sequence[str]] = MappingProxyType({}),
    raise_taken: bool = False,
    alone: bool,
) -> dict[str, str]:
    """Write rows and their lines. Returns the ERP's own id of each written or updated row, by record key.

    First the numbers that are *given_up* are freed: keys of records by column. Raises RowsRefused with every record
    that the database refuses. It raises the database's own error for an event that is *alone* in its batch, and with
    *raise_taken* for a number that another worker has just taken.
    """
    for at, keys in given_up.items():
        await handler.execute_with_context(tx, statements.give_up(handler.table, at), {"key": sorted(keys)})
    ids_by_key = {row.key: row.existing.id for row in rows if row.existing is not None}
    groups: dict[frozenset[int], list[Row]] = defaultdict(list)
    for row in rows:
        if row.existing is not None:
            groups[row.mapped.missing].append(row)
    writes = [
        _row_write(
            handler, statements.update(handler.table, missing, copies=_copies(group)), group, ids, missing
        )
        for missing, group in groups.items()
    ]
    new = [row for row in rows if row.existing is None]
    if new:
        missing = frozenset.intersection(*(row.mapped.missing for row in new))
        writes.insert(
            0,
            _row_write(
                handler, statements.insert(handler.table, missing, copies=_copies(new)), new, ids, missing
            ),
        )
    for at, row_write in enumerate(writes):
        written = await _execute(tx, handler, row_write, writes[at:], raise_taken=raise_taken, alone=alone)
        if written.returns_rows:
            ids_by_key.update({row.key: row.id for row in written})
    for child in handler.table.children:
        rows_with_lines = [row for row in rows if row.key in ids_by_key and child.name in row.mapped.children]
        await _write_lines(
            tx, handler, child, [(row, ids_by_key[row.key]) for row in rows_with_lines], ids, alone=alone
        )
    return ids_by_key


async def _execute(
    tx: AsyncConnection,
    handler: Handler,
    row_write: _RowWrite,
    rest: Sequence[_RowWrite],
    *,
    raise_taken: bool = False,
    alone: bool,
) -> CursorResult[Any]:
    """Run one statement. If the database refuses it, find all bad rows in it and in *rest*."""
    statement, arrays, _ = row_write
    if alone:
        return await handler.execute_with_context(tx, statement.for_all_rows, row_sending.pack(arrays))
    try:
        async with tx.begin_nested():
            return await handler.execute_with_context(tx, statement.for_all_rows, row_sending.pack(arrays))
    except DBAPIError as error:
        if tx.invalidated or diagnose(error).error_class in (
            ErrorClass.TRANSIENT,
            ErrorClass.CONNECTION,
        ):
            raise
        if raise_taken and sqlstate(error) == UNIQUE_VIOLATION:
            raise
        errors: dict[str, Exception] = {}
        savepoint = await tx.begin_nested()
        try:
            for statement, arrays, keys in rest:
                refused = await row_sending.refused(tx, statement, arrays)
                errors |= {keys[number]: refusal for number, refusal in refused.items()}
        finally:
            if savepoint.is_active:
                await savepoint.rollback()
        if not errors:
            raise
        raise RowsRefused(handler.entity, errors) from error


def _copies(rows: Sequence[Row]) -> bool:
    """Whether the queue has the raw record of one of *rows*."""
    return any(event is not None for event, _, _ in (row.raw for row in rows))


def _row_write(
    handler: Handler, statement: RowStatement, rows: Sequence[Row], ids: Ids, missing: frozenset[int]
) -> _RowWrite:
    return statement, arrays_of(handler, rows, ids, missing), [row.key for row in rows]


def arrays_of(
    handler: Handler, rows: Sequence[Row], ids: Ids, missing: frozenset[int] = frozenset()
) -> Arrays:
    """The rows as columns, without the columns at the positions *missing*."""
    columns = handler.table.columns
    values = [_values(row, handler.table.natural_at) for row in rows]
    arrays: dict[str, Sequence[str | None]] = {"key": [row.key for row in rows]}
    for at, column in enumerate(columns):
        if at not in missing:
            array = [row[at] for row in values]
            parent = column.parent if column.local else None
            arrays[f"c{at}"] = array if parent is None else _local(array, parent, ids)
    return arrays | dict(zip(statements.EXTRA, zip(*map(_extra, rows), strict=True), strict=True))


def _values(row: Row, natural_at: int | None) -> list[str | None]:
    blank = row.blank
    if natural_at is not None and row.folded.deleted_at is not None:
        # The source may reuse the number of a deleted record, but the ERP's column is unique. The raw record keeps it.
        blank = blank | {natural_at}
    if not blank:
        return row.mapped.values
    return [None if at in blank else value for at, value in enumerate(row.mapped.values)]


def _extra(row: Row) -> tuple[str | None, ...]:
    folded = row.folded
    versions = stored_versions(folded.stamp, folded.versions, folded.tied)
    return (
        *row.raw,
        folded.stamp.isoformat(),
        folded.deleted_at.isoformat() if folded.deleted_at is not None else None,
        versions,
        row.shape,
        folded.arrived.isoformat(),
    )


def _local(array: Sequence[str | None], parent: EntityType, ids: Ids) -> list[str | None]:
    """The ERP's own ids of parents; None if a deleted record references a parent that never arrived."""
    known = ids.get(parent, {})
    return [known.get(key) if key is not None else None for key in array]


async def _write_lines(
    tx: AsyncConnection,
    handler: Handler,
    child: Child,
    rows: Sequence[tuple[Row, str]],
    ids: Ids,
    *,
    alone: bool,
) -> None:
    """Replace the lines of *rows*: lines that are not in the new list are deleted."""
    existing_ids = [int(own_id) for row, own_id in rows if row.existing is not None]
    if existing_ids:
        await handler.execute_with_context(tx, statements.delete_lines(child), {"ids": existing_ids})
    arrays = line_arrays(child, [(own_id, row.mapped.children[child.name]) for row, own_id in rows], ids)
    if arrays is not None:
        keys = [row.key for row, _ in rows for _ in row.mapped.children[child.name]]
        row_write = (statements.insert_lines(child), arrays, keys)
        await _execute(tx, handler, row_write, [row_write], alone=alone)


def line_arrays(child: Child, by_parent: Iterable[tuple[str, Lines]], ids: Ids) -> Arrays | None:
    """The lines of many records as columns; None without lines."""
    flat = [(link, *line) for link, lines in by_parent for line in lines]
    if not flat:
        return None
    names = ["link", *(f"c{at}" for at in range(len(child.columns)))]
    arrays: dict[str, Sequence[str | None]] = dict(zip(names, zip(*flat, strict=True), strict=True))
    for at, column in enumerate(child.columns):
        if column.local and column.parent is not None:
            arrays[f"c{at}"] = _local(arrays[f"c{at}"], column.parent, ids)
    return arrays
