"""What the ERP's tables have of some records, for those who compare it with the source. Only reads."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.entities import statements
from handlers.entities.document import Refusal
from handlers.entities.registry import handler
from handlers.entities.spec import Data
from handlers.queue.event import EntityType


@dataclass(frozen=True, kw_only=True)
class Known:
    """A stored record."""

    stamp: datetime | None
    """The change time that the source gave it. None if the old code wrote the row, without one."""
    deleted_at: datetime | None
    data: Data | None
    """As folded from all versions."""


async def known(tx: AsyncConnection, entity: EntityType, keys: Collection[str]) -> dict[str, Known]:
    """The stored records among *keys*."""
    rows = await tx.execute(statements.known(handler(entity).table), {"keys": list(keys)})
    return {row.key: _known(entity, row.stamp, row.deleted_at, row.data) for row in rows}


async def keys_after(tx: AsyncConnection, entity: EntityType, after: str, limit: int) -> list[str]:
    """The next source ids after *after*, of records that are not deleted."""
    statement = statements.keys_after(handler(entity).table)
    return list((await tx.execute(statement, {"after": after, "limit": limit})).scalars())


async def records(tx: AsyncConnection, entity: EntityType) -> int:
    """The number of records that are not deleted."""
    number: int = (await tx.execute(statements.records(handler(entity).table))).scalar_one()
    return number


def _known(
    entity: EntityType, stamp: datetime | None, deleted_at: datetime | None, data: str | None
) -> Known:
    record: Data | None = json.loads(data, parse_float=Decimal) if data else None
    if record is not None and stamp is not None:
        # The stamp of the row is of its newest part, which may be a stock that a sync has read.
        with suppress(Refusal):
            stamp = handler(entity).stamp(record, stamp)
    return Known(stamp=stamp, deleted_at=deleted_at, data=record)
