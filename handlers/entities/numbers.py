"""Numbers that the ERP holds unique, such as an order's: they move from record to record, and are swapped.

A batch first frees the numbers that its records give up, then takes the new ones. A number that another record still
has is waited for, like a parent: the row is written without it, and so gives up the one that it had. Otherwise two
records that swap their numbers in two batches would wait for each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.entities import parse, statements
from handlers.entities.base import Handler
from handlers.entities.resolve import Row
from handlers.queue.event import Outcome, Result

_SQL = queries(__name__)

Number = tuple[str, ...]
"""The values of a unique index."""


class Unique(NamedTuple):
    """One unique index, as positions among the columns of its table."""

    columns: tuple[int, ...]
    free: int
    """The column that is set to NULL when a record gives up its number."""


class Assigned(NamedTuple):
    """Rows with the numbers that they may take, in the order in which they came."""

    rows: list[Row]
    waiting: dict[UUID, Result]
    """The results of events whose number another record still has."""
    given_up: dict[int, list[str]]
    """By column, the keys of records whose number another row of the batch takes."""


async def unique_columns(tx: AsyncConnection, handler: Handler) -> tuple[Unique, ...]:
    """The unique indexes of the ERP's table over text columns that we write. Cached for the connection."""
    cache = tx.info.setdefault("unique_columns", {})
    name = handler.table.name
    if name not in cache:
        indexes = (await tx.execute(_SQL["unique_columns"], {"table": name})).all()
        found = (_unique(handler, index.names, index.nullable) for index in indexes)
        cache[name] = tuple(unique for unique in found if unique is not None)
    known: tuple[Unique, ...] = cache[name]
    return known


def _unique(handler: Handler, names: Sequence[str], nullable: Sequence[bool]) -> Unique | None:
    at_by_name = {
        column.name: at
        for at, column in enumerate(handler.table.columns)
        if column.kind in (parse.TEXT, parse.ID) and not column.local
    }
    columns = tuple(at_by_name[name] for name in names if name in at_by_name)
    free = [at for at, may_be_null in zip(columns, nullable, strict=False) if may_be_null]
    # The last column is the number; those before it say within what it is unique.
    return Unique(columns=columns, free=free[-1]) if len(columns) == len(names) and free else None


def positions(uniques: Iterable[Unique]) -> tuple[int, ...]:
    """The positions of all columns of *uniques*."""
    return tuple(sorted({at for unique in uniques for at in unique.columns}))


async def assign(
    tx: AsyncConnection, handler: Handler, uniques: Sequence[Unique], rows: Sequence[Row]
) -> Assigned:
    """Decide which rows take their numbers now, and which are written without theirs."""
    assigned = {row.key: row for row in rows}
    waiting: dict[UUID, Result] = {}
    given_up: dict[int, list[str]] = defaultdict(list)
    taking: set[str] = set()
    for unique in uniques:
        takers = {row.key: row for row in rows if _wanted(unique, row) not in (None, _held(unique, row))}
        holders = await _holders(tx, handler, unique, {_number(unique, row) for row in takers.values()})
        # Of several records with one number, the one that changed last has it at the source.
        for row in sorted(takers.values(), key=_version, reverse=True):
            number = _number(unique, row)
            holder = holders.get(number)
            if holder in assigned and holder is not None and _wanted(unique, assigned[holder]) != number:
                given_up[unique.free].append(holder)
            elif number in holders and holder != row.key:
                assigned[row.key] = assigned[row.key]._replace(blank=assigned[row.key].blank | {unique.free})
                waiting |= _waiting(handler, unique, row, holder)
                continue
            holders[number] = row.key
            taking.add(row.key)
    kept = [
        assigned[row.key]
        for row in rows
        if row.folded.changed or row.folded.deleted_at is not None or row.key in taking
    ]
    return Assigned(rows=kept, waiting=waiting, given_up=given_up)


def _wanted(unique: Unique, row: Row) -> Number | None:
    """The number that *row* has at the end; None without one."""
    if row.folded.deleted_at is not None:
        return None
    if not row.mapped.missing.isdisjoint(unique.columns):
        return _held(unique, row)
    return _whole(row.mapped.values[at] for at in unique.columns)


def _held(unique: Unique, row: Row) -> Number | None:
    """The number that the stored row has now."""
    return _whole(row.existing.numbers.get(at) for at in unique.columns) if row.existing is not None else None


def _whole(values: Iterable[str | None]) -> Number | None:
    """The number, or None if a part is missing: NULL is not unique."""
    parts = list(values)
    number = tuple(part for part in parts if part is not None)
    return number if len(number) == len(parts) else None


def _number(unique: Unique, row: Row) -> Number:
    number = _wanted(unique, row)
    assert number is not None
    return number


def _version(row: Row) -> tuple[object, ...]:
    return row.folded.stamp, row.folded.arrived, row.key


async def _holders(
    tx: AsyncConnection, handler: Handler, unique: Unique, numbers: set[Number]
) -> dict[Number, str | None]:
    """The records that have *numbers* now, by their key; None for a row without the source's id."""
    if not numbers:
        return {}
    parameters = {
        f"c{at}": list(values)
        for at, values in zip(unique.columns, zip(*sorted(numbers), strict=True), strict=True)
    }
    rows = await handler.execute_with_context(
        tx, statements.holders(handler.table, unique.columns), parameters
    )
    return {tuple(row[1:]): row.key for row in rows}


def _waiting(handler: Handler, unique: Unique, row: Row, holder: str | None) -> Mapping[UUID, Result]:
    """The results of the events from which *row* has its number, while *holder* has it."""
    column = handler.table.columns[unique.free]
    keys = {key for at in unique.columns for key in handler.table.columns[at].keys}
    who = f"{handler.entity.value} {holder}" if holder is not None else f"a row of {handler.table.name}"
    result = Result(
        outcome=Outcome.WAITING,
        reason=f"waits until {who} gives up {column.name} {row.mapped.values[unique.free]}",
        field=column.keys[0],
        # A newer version of the record itself may take another number.
        parents=(row.key,) if holder is None else (holder, row.key),
        number=column.name,
    )
    return {
        id_: result
        for id_, owned in zip(row.events, row.folded.owned, strict=True)
        if not keys.isdisjoint(owned)
    }
