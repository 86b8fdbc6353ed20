"""Waking events that wait for a parent, when it has come."""

from __future__ import annotations

import re
from collections.abc import Collection
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.sql import queries
from handlers.webhooks.event import EntityType

_PARENT = re.compile(rf"\b(?:{'|'.join(EntityType)}) ([A-Za-z0-9_-]+)", re.IGNORECASE)
"""How the reason of an event that waits names a record: by its kind and its id at the source."""

_SQL = queries("queue")


def parents_named(reason: str) -> list[str]:
    """The records that an event waits for, as its *reason* names them: by these it is found when they come."""
    return sorted(set(_PARENT.findall(reason)))


async def wake_children(tx: AsyncConnection, keys: Collection[str]) -> set[UUID]:
    """Let events try at once that waited for the records *keys*, which have just come, and for no others."""
    rows = await tx.execute(_SQL["wake_children"], {"keys": sorted(set(keys))})
    return {row.id for row in rows}


async def wake_arrived(tx: AsyncConnection, *, limit: int = 5000) -> set[UUID]:
    """Let waiting events try at once whose parents have come and nobody woke them. Looks at *limit* of them."""
    rows = await tx.execute(_SQL["wake_arrived"], {"limit": limit})
    return {row.id for row in rows}


async def wake_overtaken(tx: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Let those of the waiting events *ids* try at once whose parent came while they were looked at. Returns them."""
    rows = await tx.execute(_SQL["wake_overtaken"], {"ids": list(ids)})
    return {row.id for row in rows}
