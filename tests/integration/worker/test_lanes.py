"""Two concurrent batches: no event is applied twice or left over, and no child misses its parent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.queue import look
from handlers.queue.event import EntityType, Event, Outcome, Result, Status
from handlers.worker.batch import Apply
from handlers.worker.worker import Worker, new_owner
from tests.integration.queue.events import event, row

APPLIED = Result(outcome=Outcome.APPLIED)


def worker(engine: AsyncEngine, apply: Apply, **settings: float) -> Worker:
    return Worker(engine, owner=new_owner("test"), revision="r1", apply=apply, poll_seconds=0.05, **settings)


async def ended(one: Worker, engine: AsyncEngine, *, seconds: float = 20) -> dict[Status, int]:
    """Run a worker until all events are settled; the number of events in each status."""
    stop = asyncio.Event()
    running = asyncio.create_task(one.run(stop))
    try:
        async with asyncio.timeout(seconds):
            while True:
                async with engine.connect() as tx:
                    counts = await look.counts(tx)
                if not counts[Status.PENDING] + counts[Status.PROCESSING]:
                    return counts
                await asyncio.sleep(0.02)
    finally:
        stop.set()
        await running


async def test_a_long_backlog_is_worked_on_in_two_lanes_and_each_event_once(engine: AsyncEngine) -> None:
    """While one batch is stored the next one is in progress already, and no event is in both."""
    seen: list[UUID] = []
    now = most = 0

    async def slow(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        seen.extend(each.id for each in events)
        await tx.execute(text("SELECT pg_sleep(0.05)"))
        now -= 1
        return {each.id: APPLIED for each in events}

    ids = {await event(engine, str(n)) for n in range(60)}
    counts = await ended(worker(engine, slow, batch_size=5), engine)
    assert counts[Status.COMPLETED] == 60
    assert len(seen) == 60
    assert set(seen) == ids
    assert most == 2


async def test_events_of_one_record_stay_in_order_across_lanes(engine: AsyncEngine) -> None:
    """A newer event of a record is not taken while the other lane holds an older one."""
    order: list[UUID] = []

    async def slow(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        await tx.execute(text("SELECT pg_sleep(0.01)"))
        order.extend(each.id for each in events)
        return {each.id: APPLIED for each in events}

    ids = [await event(engine, str(n % 3), age=100 - n) for n in range(30)]
    await ended(worker(engine, slow, batch_size=2), engine)
    for record in range(3):
        mine = ids[record::3]
        assert [id_ for id_ in order if id_ in mine] == mine


async def test_a_lost_connection_in_one_lane_leaves_nothing_in_our_name(engine: AsyncEngine) -> None:
    """The lane that lost its batch releases it without counting an attempt, although the other one succeeded."""
    broken = False

    async def breaks(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        nonlocal broken
        if not broken and any(each.key == "7" for each in events):
            broken = True
            await tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return {each.id: APPLIED for each in events}

    ids = [await event(engine, str(n), age=100 - n) for n in range(20)]
    counts = await ended(worker(engine, breaks, batch_size=4), engine)
    assert broken
    assert counts[Status.COMPLETED] == 20
    assert {(await row(engine, id_))["attempt_count"] for id_ in ids} == {1}


@pytest.mark.parametrize("parent_key", ["77", "2646610000000113826"])
async def test_a_child_does_not_wait_for_a_parent_that_came_while_it_was_looked_at(
    engine: AsyncEngine, parent_key: str
) -> None:
    """The parent's call to wake came before the child began to wait; the child looks once more, and is due."""
    looked, came = asyncio.Event(), asyncio.Event()

    async def orphaned(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        looked.set()
        await came.wait()
        waits = Result(outcome=Outcome.WAITING, reason="waits", parents=(parent_key,))
        return {each.id: waits for each in events}

    async def there(_: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        return {each.id: APPLIED for each in events}

    child = await event(engine, "1", entity=EntityType.INVOICE, age=10)
    looking = asyncio.create_task(worker(engine, orphaned).step())
    await looked.wait()
    await event(engine, parent_key, entity=EntityType.CUSTOMER)
    assert await worker(engine, there).step() == 1
    came.set()
    await looking
    async with engine.connect() as tx:
        due = text("SELECT status = 'retry' AND next_retry_at <= now() FROM tds_sync_queue WHERE id = :id")
        assert (await tx.execute(due, {"id": child})).scalar_one()


async def test_a_child_waits_its_time_when_its_parent_was_completed_long_before(engine: AsyncEngine) -> None:
    """What was completed before the child was looked at is no reason to look again at once: it would spin."""
    done = await event(engine, "77", entity=EntityType.CUSTOMER, age=50)

    async def there(_: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        return {each.id: APPLIED for each in events}

    async def orphaned(_: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        waits = Result(outcome=Outcome.WAITING, reason="waits", parents=("77",))
        return {each.id: waits for each in events}

    await worker(engine, there).step()
    assert (await row(engine, done))["status"] == "completed"
    child = await event(engine, "1", entity=EntityType.INVOICE)
    await worker(engine, orphaned).step()
    async with engine.connect() as tx:
        due = text("SELECT next_retry_at > now() FROM tds_sync_queue WHERE id = :id")
        assert (await tx.execute(due, {"id": child})).scalar_one()
