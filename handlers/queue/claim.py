"""Claiming due events in one statement, within the limits of the queue: by a lease, or by row locks alone.

A lease is a committed change that every worker sees, the ERP's own too. Row locks cost no change of the queue, but they
end with the transaction that applies the events: the worker claims that way while nothing is wrong (`docs/adr/0011`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.errors import TryAgain
from handlers.queue import in_hand
from handlers.queue import room as intake_room
from handlers.queue.event import QUEUE_NAMES, EntityType, Event, event_of

_SQL = queries(__name__)


def _statement(*parts: str) -> TextClause:
    return text("\n".join(part if part not in _SQL else _SQL[part].text for part in parts))


_LEASE = {
    True: _statement("busy", "chosen", "lease", "event"),
    False: _statement("nothing_busy", "chosen", "lease", "event"),
}
"""By whether batches in progress are noted in this database."""
_LOCK = _statement("busy", "chosen", "SELECT", "event", "lock")


BATCH_BYTES_MAX = 3 * 1024 * 1024
"""The payloads of a batch, as text. Parsed and mapped they take about twelve times as much memory."""


class TooManyLocked(TryAgain):
    """More events are locked than fit into a batch: the transaction must be rolled back, so that others can take them.

    *fitting* are as many as fit.
    """

    def __init__(self, fitting: int) -> None:
        super().__init__(f"only {fitting} events fit into a batch")
        self.fitting = fitting


async def claim(
    tx: AsyncConnection,
    *,
    owner: str,
    limit: int,
    lease_seconds: float,
    entities: Collection[EntityType] | None = None,
    ids: Sequence[UUID] | None = None,
    bytes_max: int = BATCH_BYTES_MAX,
) -> list[Event]:
    """Lease up to *limit* due events to *owner*, and return them as plain values.

    Due retries come first, in the order of their time, then pending events by priority and age; of a record always the
    oldest.

    *entities* and *ids* narrow the choice. Commit at once: until then no other worker sees the lease.
    A limit (`limits`) applies to every claim; events over the limit stay unchanged. Where nothing else is due, it takes
    a piece of a batch that lost its lease.
    """
    kinds = list(EntityType if entities is None else entities)
    take = partial(_claim, tx, owner=owner, lease_seconds=lease_seconds, ids=ids, bytes_max=bytes_max)
    await tx.execute(_SQL["in_order"])
    events = await _due(tx, take, kinds, limit)
    if not events:
        events = await claim_lost(
            tx, owner=owner, limit=limit, lease_seconds=lease_seconds, entities=entities, ids=ids
        )
    return events


async def lock(
    tx: AsyncConnection,
    *,
    batch: int,
    limit: int,
    entities: Collection[EntityType] | None = None,
    bytes_max: int = BATCH_BYTES_MAX,
) -> list[Event]:
    """Lock up to *limit* due events for this transaction, in the order of `claim`. Nothing of them is changed.

    *batch* is a number that no other batch has (`in_hand.new_batch`); before anything is done with the events, they are
    to be noted under it. Returns nothing while one of *entities* is limited, and no events that lost their
    lease: `claim` does. Raises TooManyLocked where *bytes_max* leaves some out. Needs `in_hand.is_there`.
    """
    kinds = list(EntityType if entities is None else entities)
    await in_hand.begin(tx, batch)
    values = {
        "limit": limit,
        "entities": [QUEUE_NAMES[kind] for kind in kinds],
        "ids": None,
        "bytes_max": bytes_max,
        "lost": False,
        "kept": [],
        "retries_max": limit,
        "fresh_max": limit,
    }
    rows = (await tx.execute(_LOCK, values)).all()
    if rows and rows[0].locked > len(rows):
        raise TooManyLocked(len(rows))
    return _in_order([event_of(row) for row in rows])


async def claim_lost(
    tx: AsyncConnection,
    *,
    owner: str,
    limit: int,
    lease_seconds: float,
    entities: Collection[EntityType] | None = None,
    ids: Sequence[UUID] | None = None,
    bytes_max: int = BATCH_BYTES_MAX,
) -> list[Event]:
    """Lease one piece of a batch whose worker lost its lease, and nothing else; see `settle.expire_leases`."""
    kinds = list(EntityType if entities is None else entities)
    names = [QUEUE_NAMES[kind] for kind in kinds]
    values = {"entities": names, "ids": None if ids is None else list(ids)}
    piece = list((await tx.execute(_SQL["lost_piece"], values)).scalars())
    if not piece:
        return []
    take = partial(
        _claim, tx, owner=owner, lease_seconds=lease_seconds, ids=piece, bytes_max=bytes_max, lost=True
    )
    return await _due(tx, take, kinds, limit)


def is_full(events: Sequence[Event], limit: int) -> bool:
    """Whether a claim of *limit* events ended at one of its bounds, so that there are probably more.

    An event that is larger than a batch is no reason to work on several batches at once.
    """
    return len(events) >= limit or (
        BATCH_BYTES_MAX // 2 <= sum(len(event.payload) for event in events) <= BATCH_BYTES_MAX
    )


async def _due(
    tx: AsyncConnection, take: Callable[..., Awaitable[list[Event]]], kinds: list[EntityType], limit: int
) -> list[Event]:
    """The events that *take* claims, within the limits."""
    events = await take(kinds=kinds, limit=limit)
    if not events and await intake_room.limits_exist(tx):
        # Nothing is due, or a limit is in force. Only a worker that found no event reads the limits.
        events = await _claim_within(tx, take, kinds, limit)
    return _in_order(events)


def _in_order(events: Iterable[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event.created_at, event.id))


async def _claim_within(
    tx: AsyncConnection, take: Callable[..., Awaitable[list[Event]]], kinds: list[EntityType], limit: int
) -> list[Event]:
    """Claim up to the limits: first retries that they do not concern, then types with a limit, then the others."""
    allowance = await intake_room.allowance(tx)
    if allowance is None:
        return []
    events: list[Event] = []
    free = allowance.retries_of(kinds)
    if free:
        events += await take(kinds=free, limit=limit, kept=allowance.locked, fresh_max=0)
    counted: list[Event] = []
    remaining = limit - len(events)
    remaining = remaining if allowance.total is None else min(remaining, allowance.total)
    for group, group_limit in (
        *(([kind], allowance.by_type[kind]) for kind in kinds if kind in allowance.by_type),
        ([kind for kind in kinds if kind not in allowance.by_type], limit),
    ):
        number = min(group_limit, remaining - len(counted))
        if group and number > 0:
            counted += await take(
                kinds=group,
                limit=number,
                kept=allowance.locked,
                retries_max=0 if set(group) <= set(free) else None,
            )
    await intake_room.take(tx, Counter(event.entity for event in counted), allowance.locked)
    return events + counted


async def _claim(
    tx: AsyncConnection,
    *,
    kinds: Sequence[EntityType],
    limit: int,
    owner: str,
    lease_seconds: float,
    ids: Sequence[UUID] | None,
    bytes_max: int,
    lost: bool = False,
    kept: Sequence[str] = (),
    retries_max: int | None = None,
    fresh_max: int | None = None,
) -> list[Event]:
    """The statement. It takes nothing while one of *kinds* has a limit that is not among those *kept* by the caller."""
    rows = await tx.execute(
        _LEASE[await in_hand.is_there(tx)],
        {
            "owner": owner,
            "limit": limit,
            "lease_seconds": lease_seconds,
            "entities": [QUEUE_NAMES[kind] for kind in kinds],
            "ids": None if ids is None else list(ids),
            "bytes_max": bytes_max,
            "lost": lost,
            "kept": list(kept),
            "retries_max": limit if retries_max is None else retries_max,
            "fresh_max": limit if fresh_max is None else fresh_max,
        },
    )
    return [event_of(row) for row in rows]
