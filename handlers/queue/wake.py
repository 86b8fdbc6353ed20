"""Waking events that wait for a parent, when it has come."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries

_SQL = queries(__name__)


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
