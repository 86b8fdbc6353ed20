"""Leases of workers that live, but not well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.engine import worker_engine
from handlers.entities.apply import apply_events
from handlers.queue import look
from handlers.queue.event import Event, Result, Status
from handlers.worker.worker import Worker, new_owner
from tests.integration.queue.events import change, event, row, without_notes

LEASE_SECONDS = 2.0


async def settled(engine: AsyncEngine, ids: Sequence[UUID], seconds: float) -> list[look.EventState]:
    """Wait until *ids* are completed."""
    deadline = time.monotonic() + seconds
    while True:
        async with engine.connect() as tx:
            states = await look.states(tx, ids)
        if all(state.status is Status.COMPLETED for state in states):
            return states
        assert time.monotonic() < deadline, [(state.status, state.error_message) for state in states]
        await asyncio.sleep(0.05)


async def test_a_worker_that_stands_still_keeps_no_record_from_the_others(
    engine: AsyncEngine, database_url: str
) -> None:
    """Stopped with its rows written and not committed: after its lease others do its work, and it undoes nothing.

    Its transaction would hold the rows of its batch for as long as its process stands still.
    """
    ids = [await event(engine, str(n)) for n in range(10)]
    stopped, go_on = asyncio.Event(), asyncio.Event()

    async def write_and_stop(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        results = await apply_events(tx, events)
        if not stopped.is_set():
            stopped.set()
            await go_on.wait()
        return results

    stop = asyncio.Event()
    first_engine = worker_engine(database_url, lease_seconds=LEASE_SECONDS)
    second_engine = worker_engine(database_url, lease_seconds=LEASE_SECONDS)
    first = Worker(
        first_engine,
        owner=new_owner("first"),
        revision="r1",
        apply=write_and_stop,
        lease_seconds=LEASE_SECONDS,
    )
    second = Worker(second_engine, owner=new_owner("second"), revision="r1", lease_seconds=LEASE_SECONDS)
    running = [asyncio.create_task(first.run(stop))]
    try:
        await asyncio.wait_for(stopped.wait(), 10)
        running.append(asyncio.create_task(second.run(stop)))
        states = await settled(engine, ids, 10)
        assert {(state.processing_result or {})["worker"] for state in states} == {second.owner}
        go_on.set()
        more = [await event(engine, str(n)) for n in range(10, 14)]
        await settled(engine, more, 10)
    finally:
        go_on.set()
        stop.set()
        await asyncio.gather(*running)
        await first_engine.dispose()
        await second_engine.dispose()
    async with engine.connect() as tx:
        assert (await tx.execute(text("SELECT count(*) FROM products"))).scalar_one() == 14
    assert await settled(engine, ids, 0) == states
    assert first.tally["applied"] + second.tally["applied"] == 14


async def test_after_a_lost_lease_less_is_taken_at_once(engine: AsyncEngine) -> None:
    """A batch that is too slow for its lease would be done in vain, again and again, until its events are dead."""
    await without_notes(engine)
    ids = [await event(engine, str(n), age=200 - n) for n in range(100)]
    taken: list[int] = []

    async def lose_the_first(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        if not taken:
            await change(
                engine, events[0].id, locked_by="another", lock_expires_at="sql:now() + interval '1 hour'"
            )
        taken.append(len(events))
        return await apply_events(tx, events)

    worker = Worker(engine, owner="me", revision="r1", apply=lose_the_first, batch_size=40)
    assert await worker.step() == 40
    assert worker.tally["lost"] == 1
    assert [await worker.step() for _ in range(4)] == [10, 20, 30, 0]
    async with engine.connect() as tx:
        assert (await look.counts(tx))[Status.COMPLETED] == 99
    assert (await row(engine, ids[0]))["locked_by"] == "another"
