"""Live traffic of a rehearsal is what a receiver writes: real records, known parents, workers called."""

from __future__ import annotations

import asyncio
import json
import random
import time
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.entities.apply import apply_events
from handlers.queue import look
from handlers.queue.claim import claim
from handlers.queue.event import Outcome
from handlers.queue.redrive import redrive
from rehearsal.webhooks import backlog, known, payloads, traffic
from rehearsal.webhooks.payloads import KEYS
from tests.integration.worker.steps import worker


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


def test_traffic_is_the_same_for_the_same_seed() -> None:
    """Kinds, records and parents are those of the seed; only ids of events and times are new."""

    def told(seed: int) -> list[tuple[str, str]]:
        chance = random.Random(seed)
        return [(event.entity, event.key) for event in (traffic.webhook(n, chance) for n in range(200))]

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_most_records_of_the_traffic_are_known_and_come_again(chance: random.Random) -> None:
    """What the broken revision could bury, a new item or invoice, is not in it."""
    now = datetime.now(UTC)
    keys = {
        kind: {str(known.record(kind, number, now)[KEYS[kind]]) for number in range(200)}
        for kind in ("product", "customer", "invoice", "order", "PAYMENT")
    }
    events = [traffic.webhook(number, chance) for number in range(400)]
    again = [event for event in events if event.key in keys[event.entity]]
    assert len(again) >= 300
    assert len({event.key for event in again}) < 160
    assert {event.entity for event in events if event.key not in keys[event.entity]} == {
        "order", "customer", "PAYMENT",
    }  # fmt: skip


def test_the_mix_of_recurring_records_has_thirty(chance: random.Random) -> None:
    """They come one after the other, again and again."""
    events = [traffic.webhook(number, chance, mix="recurring") for number in range(90)]
    keys = [(event.entity, event.key) for event in events]
    assert len(set(keys)) == 30
    assert keys[:30] == keys[30:60] == keys[60:]


async def test_some_orders_come_before_their_customers_and_wait(
    engine: AsyncEngine, chance: random.Random
) -> None:
    """One in twenty webhooks is such an order. It waits, and the arrival of its customer ends that."""
    await backlog.seed(engine, "empty")
    applying = worker(engine, apply_events)
    waited = 0
    for number in range(40):
        await traffic.send(engine, traffic.webhook(number, chance))
        while await applying.step():
            pass
        async with engine.connect() as tx:
            found = await tx.execute(
                text(
                    "SELECT count(*) FROM tds_sync_queue WHERE error_code = 'missing_parent' AND status = 'retry'"
                )
            )
            waiting = found.scalar_one()
        waited += number % 20 == 5 and waiting
        assert waiting == (number % 20 in (5, 6))
    assert waited == 2
    async with engine.connect() as tx:
        left = await tx.execute(text("SELECT count(*) FROM tds_sync_queue WHERE status <> 'completed'"))
        assert left.scalar_one() == 0


async def test_a_customer_whose_order_was_sent_comes_in_any_case(engine: AsyncEngine) -> None:
    """Also when the database refused it at first, and when the traffic ends before its turn. Other losses stay."""
    await backlog.seed(engine, "empty")
    async with engine.begin() as tx:
        await tx.execute(text("CREATE TABLE refused (key text)"))
        await tx.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF EXISTS (SELECT FROM refused"
                " WHERE new.source_entity_id LIKE key) THEN RAISE EXCEPTION 'no room'; END IF; RETURN new; END $$"
            )
        )
        await tx.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON tds_sync_queue FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
        # The first new customer, and every item.
        await tx.execute(text("INSERT INTO refused VALUES (:customer), ('2646610000000113%')"), {
            "customer": payloads.contact_id(100_007)
        })  # fmt: skip
    stop = asyncio.Event()
    received: list[UUID] = []
    running = asyncio.create_task(traffic.traffic(engine, stop, 50, received))
    await until_received(received, 12)
    async with engine.begin() as tx:
        await tx.execute(text("DELETE FROM refused"))
    # The order at position 25 has come, its customer at 27 has not.
    await until_key(engine, "order", 2)
    stop.set()
    await asyncio.wait_for(running, 20)
    async with engine.connect() as tx:
        orphans = await tx.execute(
            text(
                "SELECT count(*) FROM tds_sync_queue o WHERE o.entity_type = 'order' AND o.status = 'pending'"
                " AND NOT EXISTS (SELECT FROM tds_sync_queue c WHERE c.entity_type = 'customer'"
                " AND c.source_entity_id = o.validated_payload ->> 'customer_id')"
            )
        )
        assert orphans.scalar_one() == 0
        ids = (await tx.execute(text("SELECT id FROM tds_sync_queue WHERE status = 'pending'"))).scalars()
        assert set(ids) == set(received)


async def until_received(received: list[UUID], count: int) -> None:
    """Wait until so many webhooks were received."""
    deadline = time.monotonic() + 20
    while len(received) < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def until_key(engine: AsyncEngine, kind: str, count: int) -> None:
    """Wait until so many orders of new customers are in the queue."""
    query = text(
        "SELECT count(*) FROM tds_sync_queue WHERE status = 'pending' AND entity_type = 'order'"
        " AND validated_payload ->> 'customer_id' >= :first"
    )
    deadline = time.monotonic() + 20
    async with engine.connect() as tx:
        while (await tx.execute(query, {"first": payloads.contact_id(100_000)})).scalar_one() < count:
            await tx.rollback()
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)


async def test_four_hopeless_letters_die_of_what_they_had_died_of(engine: AsyncEngine) -> None:
    """Our core, like any other revision, cannot read them: the same error, to the letter. The others are good."""
    await backlog.seed(engine, "hopeless")
    async with engine.begin() as tx:
        former = {letter.id: letter.error_message for letter in await look.dead_letters(tx)}
        await redrive(tx, list(former))
        events = await claim(tx, owner="test", limit=500, lease_seconds=60)
        results = await apply_events(tx, events)
    bad = {id_: result for id_, result in results.items() if result.outcome is not Outcome.APPLIED}
    assert len(former) == 58
    assert len(bad) == 4
    assert {result.outcome for result in bad.values()} == {Outcome.REFUSED}
    assert {id_: former[id_] for id_ in bad} == {id_: result.reason for id_, result in bad.items()}
    assert {event.entity.value for event in events if event.id in bad} == {"Product", "Invoice"}


async def test_the_day_before_is_good_enough_to_be_compared_with(engine: AsyncEngine) -> None:
    """At least 95 % of all, and of each type: otherwise no release could be worse than what runs."""
    await backlog.seed(engine, "good")
    async with engine.connect() as tx:
        found = await tx.execute(
            text(
                "SELECT entity_type::text, count(*) FILTER (WHERE status = 'completed') / count(*)::float, count(*)"
                " FROM tds_sync_queue WHERE created_at > now() - interval '1 day' GROUP BY 1"
            )
        )
        shares = {row[0]: (row[1], row[2]) for row in found}
    assert set(shares) == {"product", "customer", "invoice", "order", "PAYMENT"}
    assert min(share for share, _ in shares.values()) > 0.95
    assert min(count for _, count in shares.values()) > 100


def test_ids_of_the_backlog_do_not_meet_the_history() -> None:
    """A dead letter's item is none that the ERP knows."""
    now = datetime.now(UTC)
    ids = {known.product(number, now)["item_id"] for number in range(known.PRODUCTS)}
    assert not ids & {seed.key for seed in backlog.dead_letters(now)}
