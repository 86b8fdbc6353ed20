"""Looking for the bad event in a batch: rows are locked in the order of their keys, however the events arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.queue.event import Event, Outcome, Result, Status
from handlers.queue.look import counts
from handlers.worker.worker import Worker
from tests.integration.queue.events import event


async def test_a_batch_in_pieces_is_still_in_the_order_of_keys(engine: AsyncEngine) -> None:
    """Two workers that isolate bad events at the same time do not deadlock."""
    for n in range(16):
        await event(engine, f"{n:02d}", age=n)  # the newest has the first key
    pieces: list[list[str]] = []

    async def picky(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        if any(each.key == "07" for each in events):
            raise ValueError("bad")
        pieces.append([each.key for each in events])
        return {each.id: Result(outcome=Outcome.APPLIED) for each in events}

    worker = Worker(engine, owner="me", revision="r1", apply=picky)
    await worker.step()
    assert len(pieces) > 2
    assert all(max(one) < min(other) for one, other in pairwise(pieces))
    async with engine.connect() as tx:
        found = await counts(tx)
    assert (found[Status.COMPLETED], found[Status.DEAD_LETTER]) == (15, 1)
