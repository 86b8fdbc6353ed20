"""Proving a row: does it say what its payload says? Values are compared as values, not as they happen to be
printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.entities import statements
from handlers.entities.base import Handler
from handlers.entities.document import Refusal
from handlers.entities.envelope import records
from handlers.entities.registry import HANDLERS
from handlers.entities.spec import Column, Data
from handlers.queue.event import EntityType

SQL = queries(__name__)
_SHOWN_MAX = 12


def expected(handler: Handler, record: Data) -> dict[str, Any]:
    """What the row must hold, by column, and its lines by child table; nothing about columns the payload
    leaves alone.

    The ERP's own ids are not in it: they depend on which record came first.
    """
    mapped = handler.map(record)
    row: dict[str, Any] = {handler.table.key: handler.source_key(record)}
    for at, column in enumerate(handler.table.columns):
        if at not in mapped.missing and not column.local:
            row[column.name] = mapped.values[at]
    for child in handler.table.children:
        if child.name in mapped.children:
            row[child.name] = [
                {
                    column.name: value
                    for column, value in zip(child.columns, line, strict=True)
                    if not column.local
                }
                for line in mapped.children[child.name]
            ]
    return row


async def uncomparable(tx: AsyncConnection, entity: EntityType, key: str, payload: str) -> str | None:
    """Why the row that a worker of the ERP's own wrote cannot be compared with *payload*; None when it can."""
    handler = HANDLERS[entity]
    asked = {"name": handler.table.name, "key": handler.table.key}
    unreadable: str | None = (await tx.execute(SQL["unreadable"], asked)).scalar_one()
    if unreadable is not None:
        return unreadable
    try:
        expected(handler, _record(handler, key, payload))
    except Refusal as refusal:
        return f"our mapping does not take its payload: {refusal}"
    return None


async def differences(
    tx: AsyncConnection,
    entity: EntityType,
    key: str,
    payload: str,
    *,
    read_at: datetime | None = None,
    by_us: bool = True,
) -> list[str]:
    """Where the stored row of *key* says something else than *payload*, each as a sentence; none if it
    agrees.

    A row that our core did not write (*by_us*) only has to hold what the payload says: where that says nothing,
    another mapping may have a default, what we work out of several fields it may work out otherwise, and lines
    may be kept elsewhere.

    Columns that the ERP's table does not have are not compared, and a row with a newer stamp is no
    difference. A record without a stamp is as old as *read_at*, when its event was made; without that it is
    taken for the newest.
    """
    handler = HANDLERS[entity]
    table = handler.table
    record = _record(handler, key, payload)
    if not (await tx.execute(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": table.name})).scalar():
        return [f"there is no table {table.name}"]
    found = (await tx.execute(statements.row(table), {"key": key})).scalar()
    if found is None:
        return [f"{table.name} has no row for {handler.entity.value} {key}"]
    stored = json.loads(found, parse_float=Decimal)
    stamp = handler.stamp(record, read_at or datetime.max.replace(tzinfo=UTC))
    if stored.get("zoho_modified_at") and _moment(stored["zoho_modified_at"]) > stamp:
        return []
    wanted = expected(handler, record)
    if stored.get("zoho_deleted_at") and table.natural_key is not None:
        # A deleted record gives its number back.
        wanted.pop(table.natural_key, None)
    if not by_us:
        worked_out = {column.name for column in table.columns if column.take is not None}
        said = {name: value for name, value in wanted.items() if value is not None and name not in worked_out}
        wanted, stored = _trimmed(said), _trimmed(stored)
    told = _compare(table.name, table.columns, wanted, stored)
    for child in table.children if by_us else ():
        if child.name in wanted:
            lines = (await tx.execute(statements.rows_of(child, table), {"key": key})).scalars().all()
            told += _compare_lines(child.name, child.columns, wanted[child.name], list(map(_load, lines)))
    return told[:_SHOWN_MAX]


def _record(handler: Handler, key: str, payload: str) -> Data:
    for record in records(handler, payload, from_database=True):
        if handler.source_key(record.data) == key:
            return record.data
    raise Refusal("(body)", f"holds no {handler.entity.value} {key}")


def _trimmed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.strip() if isinstance(value, str) else value for name, value in row.items()}


def _load(found: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(found, parse_float=Decimal)
    return loaded


def _compare(
    where: str, declared: Sequence[Column], wanted: Mapping[str, str | None], stored: Mapping[str, Any]
) -> list[str]:
    return [
        f"{where}.{column.name} is {stored[column.name]!r}, the payload says {wanted[column.name]!r}"
        for column in declared
        if column.name in wanted
        and column.name in stored
        and not _same(column, wanted[column.name], stored[column.name])
    ]


def _compare_lines(
    where: str,
    declared: Sequence[Column],
    wanted: Sequence[Mapping[str, str | None]],
    stored: Sequence[Mapping[str, Any]],
) -> list[str]:
    if len(wanted) != len(stored):
        return [f"{where} has {len(stored)} rows, the payload says {len(wanted)}"]
    return [
        sentence
        for at, (one, other) in enumerate(zip(wanted, stored, strict=True))
        for sentence in _compare(f"{where}[{at}]", declared, one, other)
    ]


def _same(column: Column, wanted: str | None, stored: object) -> bool:
    """Whether a stored value is the wanted one, whatever type the ERP gave its column."""
    if wanted is None or stored is None:
        return wanted is stored
    same = _SAME.get(column.kind.pg_type)
    try:
        return same(wanted, stored) if same is not None else wanted == str(stored)
    except (ValueError, InvalidOperation):
        return False


def _same_number(wanted: str, stored: object) -> bool:
    """Equal, or rounded because the ERP's column holds whole numbers only."""
    one, other = Decimal(wanted), Decimal(str(stored))
    return one == other or (isinstance(stored, int) and one.quantize(Decimal(1), ROUND_HALF_UP) == other)


def _same_json(wanted: str, stored: object) -> bool:
    kept = json.loads(stored, parse_float=Decimal) if isinstance(stored, str) else stored
    return bool(json.loads(wanted, parse_float=Decimal) == kept)


def _moment(printed: str) -> datetime:
    """An instant; a column without a zone holds UTC, because the core's sessions run in UTC."""
    read = datetime.fromisoformat(printed)
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


_SAME: dict[str, Callable[[str, object], bool]] = {
    "numeric": _same_number,
    "integer": _same_number,
    "boolean": lambda wanted, stored: (wanted == "true") is stored,
    "date": lambda wanted, stored: wanted == str(stored)[:10],
    "timestamptz": lambda wanted, stored: _moment(wanted) == _moment(str(stored)),
    "jsonb": _same_json,
}
"""How a value is compared with the stored one, by the type we gave it."""
