"""Reading and locking the stored rows of a batch, also those that the old code wrote without the source's id."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import Row as SqlRow
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.entities import statements
from handlers.entities.base import Handler
from handlers.entities.fold import UNKNOWN_ARRIVAL, Stored
from handlers.entities.resolve import MappedEvent, StoredRow
from handlers.entities.versions import read_versions


async def read_rows(
    tx: AsyncConnection,
    handler: Handler,
    keys: list[str],
    by_key: Mapping[str, list[MappedEvent]],
    unique: tuple[int, ...] = (),
) -> dict[str, StoredRow]:
    """Lock and read the rows of *keys*; adopt rows that the old code wrote without the source's id.

    With the values of the columns at the positions *unique*.
    """
    if not keys:
        return {}
    single = [by_key[key][0] if len(by_key[key]) == 1 else None for key in keys]
    parameters = {
        "key": keys,
        "stamp": [version.change.stamp.isoformat() if version else None for version in single],
        # Only a single change, not a delete, can be decided by its stamp alone.
        "shape": [version.shape if version and not version.change.deleted else None for version in single],
    }
    rows = await handler.execute_with_context(tx, statements.read(handler.table, unique), parameters)
    stored_rows = {row.key: _stored_row(row, unique) for row in rows}
    natural_keys = _natural_keys(handler, [key for key in keys if key not in stored_rows], by_key)
    if natural_keys:
        adopted = await handler.execute_with_context(
            tx,
            statements.recognise(handler.table),
            {"key": list(natural_keys), "natural": list(natural_keys.values())},
        )
        if adopted.all():
            rows = await handler.execute_with_context(tx, statements.read(handler.table, unique), parameters)
            stored_rows = {row.key: _stored_row(row, unique) for row in rows}
    return stored_rows


def _stored_row(row: SqlRow[Any], unique: tuple[int, ...]) -> StoredRow:
    stored = None
    if row.stamp is not None and row.data is not None:
        versions, tied = read_versions(row.versions)
        stored = Stored(
            stamp=row.stamp,
            arrived=row.arrived or UNKNOWN_ARRIVAL,
            deleted_at=row.deleted_at,
            data=json.loads(row.data, parse_float=Decimal),
            versions=versions,
            tied=tied,
        )
    return StoredRow(
        id=row.id,
        stamp=row.stamp,
        deleted_at=row.deleted_at,
        covered=row.covered,
        stored=stored,
        # They follow the key, the id and the stamp.
        numbers=dict(zip(unique, row[3:], strict=False)),
    )


def _natural_keys(
    handler: Handler, keys: Iterable[str], by_key: Mapping[str, list[MappedEvent]]
) -> dict[str, str]:
    position = handler.table.natural_at
    if position is None:
        return {}
    numbers = {key: by_key[key][0].mapped.values[position] for key in keys}
    return {key: number for key, number in numbers.items() if number is not None}
