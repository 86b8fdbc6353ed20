"""Waking events that wait for a parent, after the parent was applied."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries

_SQL = queries(__name__)


_EARLIER_SECONDS = 10.0
"""A parent completed so long before its child was claimed may have been committed after the child looked for it."""


async def wake_children(tx: AsyncConnection, keys: Collection[str]) -> set[UUID]:
    """Make events due now that waited only for the records *keys*, which were just applied. Returns their ids.

    Also those that have become dead letters of waiting.
    """
    arrived = sorted(set(keys))
    children = await tx.execute(_SQL["waiting_for"], {"keys": arrived})
    return await _wake(tx, children.scalars().all(), keys=arrived)


async def wake_arrived(tx: AsyncConnection, *, limit: int = 5000) -> set[UUID]:
    """Make waiting events due now whose parents were applied without waking them. Checks at most *limit* of each state.

    The worker that applied a parent may have died before it could wake the children.
    """
    waiting = await tx.execute(_SQL["waiting_longest"], {"limit": limit})
    dead = await tx.execute(_SQL["waited_in_vain"], {"limit": limit})
    ids = [*waiting.scalars(), *dead.scalars()]
    return await _wake(tx, ids, earlier_seconds=_EARLIER_SECONDS)


async def wake_overtaken(tx: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Make those of *ids* due now whose parent was applied while they were processed. Returns their ids.

    The call that wakes the parent's children came before they waited. Call this after their retry is committed.
    """
    return await _wake(tx, ids)


async def _wake(
    tx: AsyncConnection, ids: Collection[UUID], *, keys: Collection[str] = (), earlier_seconds: float = 0.0
) -> set[UUID]:
    """Make those of *ids* due now whose parents were all applied; those in *keys* were."""
    if not ids:
        return set()
    values = {"ids": list(ids), "keys": list(keys), "earlier_seconds": earlier_seconds}
    return set((await tx.execute(_SQL["wake"], values)).scalars())
