"""Live traffic of a rehearsal is what a receiver writes: real records, known parents, workers called."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.entities.apply import apply_events
from handlers.queue import look
from handlers.queue.claim import claim
from handlers.queue.event import Outcome
from handlers.queue.redrive import redrive
from rehearsal.webhooks import backlog, traffic


@pytest.fixture
def chance() -> random.Random:
    return random.Random(7)


async def send(engine: AsyncEngine, count: int, chance: random.Random) -> None:
    for number in range(count):
        await traffic.send(engine, traffic.webhook(number, chance))


async def test_every_webhook_can_be_applied(engine: AsyncEngine, chance: random.Random) -> None:
    """No parent is missing and no field is refused: whatever fails in a rehearsal is the revision's fault."""
    await backlog.seed(engine, "empty")
    await send(engine, 60, chance)
    async with engine.begin() as tx:
        events = await claim(tx, owner="test", limit=500, lease_seconds=60)
        results = await apply_events(tx, events)
    assert len(events) == 60
    bad = [
        result for result in results.values() if result.outcome not in (Outcome.APPLIED, Outcome.SUPERSEDED)
    ]
    assert bad == []


async def test_whole_backlog_can_be_applied(engine: AsyncEngine) -> None:
    """All 58 dead letters are good records: a fixed revision drains every one."""
    await backlog.seed(engine, "good")
    async with engine.begin() as tx:
        dead = await look.dead_letters(tx)
        await redrive(tx, [event.id for event in dead])
        events = await claim(tx, owner="test", limit=500, lease_seconds=60)
        results = await apply_events(tx, events)
    assert [len(dead), len(events)] == [58, 58]
    assert {result.outcome for result in results.values()} == {Outcome.APPLIED}


async def test_failed_only_has_no_dead_letter(engine: AsyncEngine) -> None:
    """The variant of scenario C: the same records, all of them failed."""
    await backlog.seed(engine, "failed-only")
    async with engine.connect() as connection:
        found = await connection.execute(
            text("SELECT status::text, count(*) FROM tds_sync_queue WHERE status <> 'completed' GROUP BY 1")
        )
        assert [tuple(row) for row in found] == [("failed", 58)]


async def test_oldest_dead_letter_is_an_item_with_a_clean_level(engine: AsyncEngine) -> None:
    """The candidate for the canary is harmless, most items behind it are not."""
    await backlog.seed(engine, "good")
    async with engine.connect() as connection:
        levels = await connection.execute(
            text(
                "SELECT validated_payload ->> 'reorder_level' FROM tds_sync_queue"
                " WHERE status = 'dead_letter' AND entity_type = 'product' ORDER BY created_at"
            )
        )
        first, *others = levels.scalars()
    assert first == "5"
    assert others.count("5") < len(others) / 4


async def test_workers_are_called(database_url: str, engine: AsyncEngine, chance: random.Random) -> None:
    """Each insert notifies the channel that workers listen on, once its transaction is there."""
    await backlog.seed(engine, "empty")
    called = asyncio.Event()
    listener = await asyncpg.connect(database_url)
    try:
        await listener.add_listener("tds_sync_queue", lambda *_: called.set())
        await send(engine, 1, chance)
        await asyncio.wait_for(called.wait(), 5)
    finally:
        await listener.close()


async def test_inbox_keeps_the_whole_body(engine: AsyncEngine, chance: random.Random) -> None:
    """The inbox has the body as it came, the queue the bare record, and they are linked."""
    await backlog.seed(engine, "empty")
    await send(engine, 10, chance)
    async with engine.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT i.raw_payload::text, q.validated_payload::text, q.source_entity_id"
                " FROM tds_sync_queue q JOIN tds_inbox_events i ON i.id = q.inbox_event_id"
                " WHERE q.status = 'pending'"
            )
        )
        rows = found.all()
    assert len(rows) == 10
    for body, record, key in rows:
        (inner,) = json.loads(body).values()
        assert inner == json.loads(record)
        assert key in inner.values()


async def test_traffic_keeps_its_pace_and_stops(engine: AsyncEngine) -> None:
    """Stopping takes effect at once, also in the middle of a long pause."""
    await backlog.seed(engine, "empty")
    stop = asyncio.Event()
    running = asyncio.create_task(traffic.traffic(engine, stop, 0.01))
    async with engine.connect() as connection:
        while not await connection.scalar(
            text("SELECT count(*) FROM tds_sync_queue WHERE status = 'pending'")
        ):
            await connection.rollback()
            await asyncio.sleep(0.02)
    stop.set()
    assert await asyncio.wait_for(running, 5) == 1


def test_ids_of_the_backlog_do_not_meet_the_history() -> None:
    """A dead letter's item is none that the ERP knows."""
    now = datetime.now(UTC)
    known = {backlog.known_product(number, now)["item_id"] for number in range(backlog.PRODUCTS)}
    assert not known & {seed.key for seed in backlog.dead_letters(now)}
