"""Batches in progress: what each worker has in hand, where it claims by row locks instead of leases.

The queue does not show such a batch before it has committed. So it is noted in a narrow table of the ledger, on a
connection of its own, before it is applied, and the note goes with the batch's transaction. The transaction holds an
advisory lock as long as it lives: a note whose lock is free was left by a worker that was killed, and its events are
taken back in pieces (`settle.expire_leases`), so that one event that kills its worker is found. A worker shows in the
same way that it lives: its leases end a minute after its last sign, not only when they run out.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.queries import queries
from handlers.database.transaction import remembered_yes
from handlers.queue.event import Event, Status

OWNER_PATTERN = "-[0-9]+-[0-9a-f]{8}$"
"""The suffix of our own workers' owner tokens (`worker.new_owner`)."""

_SQL = queries(__name__)


def new_batch() -> int:
    """A number for a batch, which is also the key of its advisory lock."""
    return secrets.randbits(62)


async def is_there(tx: AsyncConnection) -> bool:
    """Whether batches can be noted in this database. A yes is cached for the connection."""
    return await remembered_yes(tx, "in_hand", _SQL["is_there"])


async def begin(tx: AsyncConnection, batch: int) -> None:
    """Mark this transaction as the one that applies *batch*."""
    await tx.execute(_SQL["begin"], {"batch": batch})


async def note(engine: AsyncEngine, *, batch: int, owner: str, events: Sequence[Event]) -> None:
    """Note what *owner* is about to apply, on another connection than the batch's: it is committed at once."""
    values = {
        "batch": batch,
        "owner": owner,
        "ids": [event.id for event in events],
        "bytes": sum(len(event.payload) for event in events),
    }
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(_SQL["note"], values)


async def done(tx: AsyncConnection, batch: int) -> None:
    """Remove the note of *batch*, in the transaction that has applied it."""
    await tx.execute(_SQL["done"], {"batch": batch})


async def forget(tx: AsyncConnection, owner: str) -> None:
    """Remove the notes of *owner*, which has no batch in progress: what it had in hand went back untouched."""
    if await is_there(tx):
        await tx.execute(_SQL["forget"], {"owner": owner})


async def live(connection: AsyncConnection, owner: str) -> None:
    """Show with an advisory lock that the worker *owner* lives: as long as this connection does.

    The connection must not be in a transaction.
    """
    await connection.execute(_SQL["live"], {"owner": owner})


async def ended(connection: AsyncConnection, owner: str) -> None:
    """Give up the lock of `live`: the connection goes back to its pool, and the worker ends."""
    await connection.execute(_SQL["ended"], {"owner": owner})


async def take_back(tx: AsyncConnection) -> None:
    """Turn the batches and the leases of killed workers into leases that have run out."""
    if await is_there(tx):
        await tx.execute(_SQL["left"])
    if await remembered_yes(tx, "worker", _SQL["owners_are_there"]):
        await tx.execute(_SQL["orphaned"])


async def others_are_seen(tx: AsyncConnection) -> bool:
    """Whether workers of another kind than ours are at work, or were a moment ago."""
    return bool((await tx.execute(_SQL["others"], {"ours": OWNER_PATTERN})).scalar_one())


async def counts(tx: AsyncConnection) -> Counter[Status]:
    """The number of events in hand, by the status that the queue still shows."""
    if not await is_there(tx):
        return Counter()
    return Counter({Status(row.status): row.events for row in await tx.execute(_SQL["counts"])})


async def counts_by_type(tx: AsyncConnection) -> Counter[tuple[str, Status]]:
    """The number of events in hand, by the queue's name of their type and the status that the queue still shows."""
    if not await is_there(tx):
        return Counter()
    rows = await tx.execute(_SQL["counts_by_type"])
    return Counter({(row.raw_type, Status(row.status)): row.events for row in rows})


async def among(tx: AsyncConnection, ids: Sequence[UUID]) -> set[UUID]:
    """Those of *ids* that are in hand."""
    if not await is_there(tx):
        return set()
    return set((await tx.execute(_SQL["of"], {"ids": list(ids)})).scalars())


async def all_ids(tx: AsyncConnection) -> set[UUID]:
    """Every event that is in hand."""
    if not await is_there(tx):
        return set()
    return set((await tx.execute(_SQL["all_ids"])).scalars())
