"""Waking events that wait for a parent, after the parent was applied."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries

_SQL = queries(__name__)


async def wake_children(tx: AsyncConnection, keys: Collection[str]) -> set[UUID]:
    """Make events due now that waited only for the records *keys*, which were just applied. Returns their ids."""
    rows = await tx.execute(_SQL["wake_children"], {"keys": sorted(set(keys))})
    return {row.id for row in rows}


async def wake_arrived(tx: AsyncConnection, *, limit: int = 5000) -> set[UUID]:
    """Make waiting events due now whose parents were applied without waking them. Checks at most *limit*."""
    rows = await tx.execute(_SQL["wake_arrived"], {"limit": limit})
    return {row.id for row in rows}


async def wake_overtaken(tx: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Make those of *ids* due now whose parent was applied while they were processed. Returns their ids."""
    rows = await tx.execute(_SQL["wake_overtaken"], {"ids": list(ids)})
    return {row.id for row in rows}
