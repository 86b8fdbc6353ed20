"""Webhooks that arrive while somebody waits for one. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.queue.event import QUEUE_NAMES, SYNTHETIC_KEY, EntityType

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One webhook in the queue."""

    id: UUID
    key: str
    created_at: datetime


async def first_after(
    tx: AsyncConnection, since: datetime, entity: EntityType, key: str = ""
) -> Arrival | None:
    """The first webhook of this type (and record) that came after *since*; None while there is none."""
    values = {
        "since": since,
        "type": QUEUE_NAMES[entity],
        "key": key or None,
        "synthetic": SYNTHETIC_KEY,
    }
    row = (await tx.execute(_SQL["first"], values)).one_or_none()
    return Arrival(id=row.id, key=row.key, created_at=row.created_at) if row is not None else None
