"""Leasing due events to a worker, in one statement, within the limits on intake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.queue import room as intake_room
from handlers.queue.event import QUEUE_NAMES, EntityType, Event, event_of

_SQL = queries(__name__)
_CLAIM_UNLIMITED = text(
    _SQL["claim"].text.replace(
        "-- [unless intake is limited]", "AND NOT EXISTS (SELECT FROM runbook.intake WHERE until > now())"
    )
)
"""The claim for databases with limits on intake: one statement as before, which takes nothing while one is in force."""


async def claim(
    tx: AsyncConnection,
    *,
    owner: str,
    limit: int,
    lease_seconds: float,
    entities: Collection[EntityType] | None = None,
    ids: Sequence[UUID] | None = None,
) -> list[Event]:
    """Lease up to *limit* due events to *owner*, oldest first, and return them as plain values.

    *entities* and *ids* narrow the choice. Commit at once: until then nobody else can see the lease.
    A limit on intake (`limits`) binds every claim; what it holds back is left as it is.
    """
    kinds = list(EntityType if entities is None else entities)
    limitable = await intake_room.is_there(tx)
    statement = _CLAIM_UNLIMITED if limitable else _SQL["claim"]
    take = partial(_claim, tx, owner=owner, lease_seconds=lease_seconds, ids=ids)
    events = await take(statement, kinds=kinds, limit=limit)
    if not events and limitable:
        # Nothing is due, or there is a limit: only who has nothing to do needs to ask.
        events = await _claim_within(tx, take, kinds, limit)
    return sorted(events, key=lambda event: (event.created_at, event.id))


async def _claim_within(
    tx: AsyncConnection, take: Callable[..., Awaitable[list[Event]]], kinds: list[EntityType], limit: int
) -> list[Event]:
    """Claim what the limits on intake leave room for: first of the kinds that have one, then of the others."""
    room = await intake_room.allowance(tx)
    if room is None:
        return []
    left = limit if room.of_all is None else min(limit, room.of_all)
    events: list[Event] = []
    for group, most in (
        *(([kind], room.of_kind[kind]) for kind in kinds if kind in room.of_kind),
        ([kind for kind in kinds if kind not in room.of_kind], limit),
    ):
        number = min(most, left - len(events))
        if group and number > 0:
            events += await take(_SQL["claim"], kinds=group, limit=number)
    await intake_room.take(tx, Counter(event.entity for event in events))
    return events


async def _claim(
    tx: AsyncConnection,
    statement: TextClause,
    *,
    kinds: Sequence[EntityType],
    limit: int,
    owner: str,
    lease_seconds: float,
    ids: Sequence[UUID] | None,
) -> list[Event]:
    rows = await tx.execute(
        statement,
        {
            "owner": owner,
            "limit": limit,
            "lease_seconds": lease_seconds,
            "entities": [QUEUE_NAMES[kind] for kind in kinds],
            "ids": None if ids is None else list(ids),
        },
    )
    return [event_of(row) for row in rows]
