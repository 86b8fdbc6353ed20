"""Writing the rows of a batch and their lines, one statement for each table; or naming those the database refuses."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import CursorResult
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.entities import rows as sending
from handlers.entities import statements
from handlers.entities.base import Handler
from handlers.entities.resolve import Ids, Row
from handlers.entities.rows import Arrays, Writing
from handlers.entities.spec import Child, Lines
from handlers.queue.diagnose import RowsRefused, diagnose
from handlers.queue.event import EntityType, ErrorClass

_Put = tuple[Writing, Arrays, Sequence[str]]
"""A statement, the rows it takes, and for each row the key of its record."""


async def write(
    tx: AsyncConnection, handler: Handler, rows: Sequence[Row], ids: Ids, *, alone: bool
) -> dict[str, str]:
    """Write rows and their lines. Gives the ERP's own id for each row that is now ours to point at.

    Raises RowsRefused with every record of the failed statement that the database refuses; for an event that is *alone*
    in its batch there is nobody else to ask about, and the database's own error is raised.
    """
    own = {row.key: row.found.id for row in rows if row.found is not None}
    groups: dict[frozenset[int], list[Row]] = defaultdict(list)
    for row in rows:
        if row.found is not None:
            groups[row.mapped.missing].append(row)
    puts = [
        _put(handler, statements.update(handler.table, missing), group, ids, missing)
        for missing, group in groups.items()
    ]
    new = [row for row in rows if row.found is None]
    if new:
        missing = frozenset.intersection(*(row.mapped.missing for row in new))
        puts.insert(0, _put(handler, statements.insert(handler.table, missing), new, ids, missing))
    for at, put in enumerate(puts):
        written = await _execute(tx, handler, put, puts[at:], alone=alone)
        if written.returns_rows:
            own.update({row.key: row.id for row in written})
    for child in handler.table.children:
        with_lines = [row for row in rows if row.key in own and child.name in row.mapped.children]
        await _write_lines(tx, handler, child, [(row, own[row.key]) for row in with_lines], ids, alone=alone)
    return own


async def _execute(
    tx: AsyncConnection, handler: Handler, put: _Put, rest: Sequence[_Put], *, alone: bool
) -> CursorResult[Any]:
    """Run one statement; when the database refuses it, ask for all bad rows in it and in the *rest*."""
    writing, arrays, _ = put
    if alone:
        return await handler.execute_with_context(tx, writing.of_all, sending.pack(arrays))
    try:
        async with tx.begin_nested():
            return await handler.execute_with_context(tx, writing.of_all, sending.pack(arrays))
    except DBAPIError as error:
        if tx.invalidated or diagnose(error).error_class is ErrorClass.TRANSIENT:
            raise
        found: dict[str, Exception] = {}
        savepoint = await tx.begin_nested()
        try:
            for writing, arrays, keys in rest:
                refused = await sending.refused(tx, writing, arrays)
                found |= {keys[number]: each for number, each in refused.items()}
        finally:
            if savepoint.is_active:
                await savepoint.rollback()
        if not found:
            raise
        raise RowsRefused(handler.entity, found) from error


def _put(handler: Handler, writing: Writing, rows: Sequence[Row], ids: Ids, missing: frozenset[int]) -> _Put:
    return writing, arrays_of(handler, rows, ids, missing), [row.key for row in rows]


def arrays_of(
    handler: Handler, rows: Sequence[Row], ids: Ids, missing: frozenset[int] = frozenset()
) -> Arrays:
    """The rows, column by column, without the columns at the positions *missing*."""
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
    values = row.mapped.values
    if natural_at is None or row.folded.deleted_at is None:
        return values
    # The source may give the number of a deleted record to another one, and the ERP has each number only once.
    # The raw record keeps it.
    return [None if at == natural_at else value for at, value in enumerate(values)]


def _extra(row: Row) -> tuple[str | None, ...]:
    folded = row.folded
    versions = {key: (at.isoformat(), digest) for key, (at, digest) in folded.versions.items()}
    return (
        *row.raw,
        folded.stamp.isoformat(),
        folded.deleted_at.isoformat() if folded.deleted_at is not None else None,
        json.dumps(versions) if versions else None,
        row.shape,
    )


def _local(array: Sequence[str | None], parent: EntityType, ids: Ids) -> list[str | None]:
    """The ERP's own ids of parents; none where a deleted record points at something that never came."""
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
    """Replace the lines of *rows*: what is no longer in the list is gone."""
    before = [int(own) for row, own in rows if row.found is not None]
    if before:
        await handler.execute_with_context(tx, statements.delete_lines(child), {"ids": before})
    arrays = line_arrays(child, [(own, row.mapped.children[child.name]) for row, own in rows], ids)
    if arrays is not None:
        keys = [row.key for row, _ in rows for _ in row.mapped.children[child.name]]
        put = (statements.insert_lines(child), arrays, keys)
        await _execute(tx, handler, put, [put], alone=alone)


def line_arrays(child: Child, by_parent: Iterable[tuple[str, Lines]], ids: Ids) -> Arrays | None:
    """The lines of many records, column by column; None where there are none."""
    flat = [(link, *line) for link, lines in by_parent for line in lines]
    if not flat:
        return None
    names = ["link", *(f"c{at}" for at in range(len(child.columns)))]
    arrays: dict[str, Sequence[str | None]] = dict(zip(names, zip(*flat, strict=True), strict=True))
    for at, column in enumerate(child.columns):
        if column.local and column.parent is not None:
            arrays[f"c{at}"] = _local(arrays[f"c{at}"], column.parent, ids)
    return arrays
