"""A history that reaches the workers in any order: the same tables, and no event that dies of waiting."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.engine import worker_engine
from handlers.queue.event import EntityType, Event, Operation, Outcome
from handlers.worker.worker import Worker, new_owner
from rehearsal.postgres import Postgres
from tests.conftest import engine_for
from tests.integration.entities.events import ARRIVED, ID_KEYS, applied, event, outcomes, tables
from tests.integration.worker.test_race import put

E = EntityType
ATTEMPTS_MAX = 3
"""As the receivers write it: who waits for parents that come must get along with it."""
ZONES = ((0, "Z"), (3, "+0300"), (5, "+05:00"), (-8, "-0800"))
PARENTS, CHILDREN = 8, 16


def record(kind: EntityType, key: str, chance: random.Random) -> dict[str, Any]:
    """A record with references, lists and an unknown key, in one of the source's formats."""
    number = chance.randrange(100)
    products = [f"1{n:02d}" for n in chance.sample(range(PARENTS), chance.randrange(4))]
    lines = [
        {"item_id": item, "quantity": chance.choice([1, "2.5", ""]), "rate": number} for item in products
    ]
    customer, vendor = f"2{chance.randrange(PARENTS):02d}", f"3{chance.randrange(PARENTS):02d}"
    said: dict[EntityType, dict[str, Any]] = {
        E.PRODUCT: {"name": f"n{number}", "rate": chance.choice(["", number]), "status": "active"},
        E.CUSTOMER: {"contact_type": "customer", "contact_name": f"c{number}", "contact_persons": ""},
        E.VENDOR: {"contact_type": "vendor", "contact_name": f"v{number}", "payment_terms": -3},
        E.USER: {"name": f"u{number}", "email": ""},
        E.PRICE_LIST: {
            "name": "p",
            "pricebook_items": [{"item_id": i, "pricebook_rate": number} for i in products],
        },
        E.SALES_ORDER: {"customer_id": customer, "total": number, "line_items": lines},
        E.INVOICE: {"customer_id": customer, "total": f"{number}.50", "line_items": lines},
        E.BILL: {"vendor_id": vendor, "total": number, "line_items": lines},
        E.PAYMENT: {
            "customer_id": customer,
            "amount": number,
            "invoices": [
                {"invoice_id": f"7{n:02d}", "amount_applied": n} for n in chance.sample(range(CHILDREN), 2)
            ],
        },
        E.CREDIT_NOTE: {"customer_id": customer, "total": number, "line_items": lines},
        E.STOCK_ADJUSTMENT: {"adjustment_type": "quantity", "line_items": lines},
    }
    return {ID_KEYS[kind]: key, "cf_unknown": number, **said[kind]}


def history(chance: random.Random) -> list[Event]:
    """Versions of many records: whole, partial, with equal stamps or none, bare deletes, and records created again."""
    keys = [(kind, f"{at}{n:02d}") for at, kind in enumerate((E.PRODUCT, E.CUSTOMER, E.VENDOR, E.USER), 1)
            for n in range(PARENTS)]  # fmt: skip
    keys += [(kind, f"{at}{n:02d}") for at, kind in enumerate((E.PRICE_LIST, E.SALES_ORDER, E.INVOICE, E.BILL,
             E.PAYMENT, E.CREDIT_NOTE, E.STOCK_ADJUSTMENT), 5) for n in range(CHILDREN)]  # fmt: skip
    events = []
    for kind, key in keys:
        second = chance.randrange(3600)
        for version in range(chance.randrange(1, 5)):
            second += chance.choice([0, 1, 60, 900])
            at = ARRIVED + timedelta(seconds=second)
            said = record(kind, key, chance)
            operation = Operation.UPSERT
            dice = chance.random() if version else 1
            if dice < 0.2:
                operation = Operation.DELETE
                # The source sends the last record, or nothing but an answer.
                said = said if dice < 0.1 else {ID_KEYS[kind]: key}
            elif dice < 0.5:
                keep = {ID_KEYS[kind]} | ({"contact_type"} if dice < 0.4 else set())
                said = {name: value for name, value in said.items() if name in keep or chance.random() < 0.5}
            if chance.random() < 0.85:
                hours, zone = chance.choice(ZONES)
                stamp = (at + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S")
                said["last_modified_time"] = f"{stamp}{zone}"
            one = event(kind, said, operation=operation, created_at=at)
            events.append(one._replace(attempts_max=ATTEMPTS_MAX))
            if chance.random() < 0.1:
                events.append(events[-1]._replace(id=uuid.uuid4()))
    return numbered(events, chance)


def numbered(events: list[Event], chance: random.Random) -> list[Event]:
    """Give orders and payments numbers, which move and are swapped as at the source: never two of a kind at once."""
    keys = {E.SALES_ORDER: "salesorder_number", E.PAYMENT: "payment_number"}
    held: dict[tuple[EntityType, str], int] = {}
    told: list[Event] = []
    for one in sorted(events, key=stamp_of):
        delivered = next((t for t in told if (t.key, t.created_at) == (one.key, one.created_at)), None)
        if delivered is not None and delivered.entity is one.entity:
            one = one._replace(payload=delivered.payload)
        elif one.entity in keys and one.operation is not Operation.DELETE:
            taken = {number for (kind, key), number in held.items() if kind is one.entity and key != one.key}
            free = [number for number in range(PARENTS * 4) if number not in taken]
            held[one.entity, one.key] = chance.choice(free[:3])
            said = json.loads(one.payload) | {keys[one.entity]: f"N-{held[one.entity, one.key]}"}
            one = one._replace(payload=json.dumps(said))
        elif one.operation is Operation.DELETE:
            held.pop((one.entity, one.key), None)
        told.append(one)
    return sorted(told, key=lambda one: one.created_at)


def stamp_of(one: Event) -> datetime:
    """When the record changed at the source."""
    said = json.loads(one.payload).get("last_modified_time")
    return datetime.strptime(said.replace("Z", "+0000"), "%Y-%m-%dT%H:%M:%S%z") if said else one.created_at


def arriving(events: Sequence[Event], chance: random.Random) -> list[Event]:
    """The same events in another order. Those without a stamp keep their time: it is their version.

    So do the turns of versions with one stamp: the one that arrives later is the newer one.
    """
    stamped = [one for one in events if "last_modified_time" in json.loads(one.payload)]
    times = [one.created_at for one in stamped]
    chance.shuffle(times)
    moved = dict(zip([one.id for one in stamped], times, strict=True))
    tied: dict[tuple[EntityType, str, datetime], list[Event]] = defaultdict(list)
    for one in stamped:
        tied[one.entity, one.key, stamp_of(one)].append(one)
    for group in tied.values():
        turns = sorted(moved[one.id] for one in group)
        # Deliveries of one version at one time stay together.
        firsts = dict.fromkeys(
            (one.created_at, one.payload) for one in sorted(group, key=lambda x: x.created_at)
        )
        turn_of = dict(zip(firsts, turns, strict=False))
        moved |= {one.id: turn_of[one.created_at, one.payload] for one in group}
    return [one._replace(created_at=moved.get(one.id, one.created_at)) for one in events]


async def work(url: str, *, workers: int, batch_size: int, seconds: float = 40) -> None:
    """Let *workers* work until all is settled. What waits has minutes to wait, unless it is woken."""
    stop = asyncio.Event()
    engines = [worker_engine(url) for _ in range(workers)]
    running = [
        asyncio.create_task(
            Worker(engine, owner=new_owner("test"), revision="r1", batch_size=batch_size).run(stop)
        )
        for engine in engines
    ]
    connection = await asyncpg.connect(url)
    open_events = (
        "SELECT status, left(error_message, 80) FROM tds_sync_queue"
        " WHERE status IN ('pending', 'processing', 'retry') LIMIT 3"
    )
    try:
        async with asyncio.timeout(seconds):
            while (left := await connection.fetch(open_events)) and not any(task.done() for task in running):
                await asyncio.wait(running, timeout=0.05)
    except TimeoutError:
        raise AssertionError(f"still open after {seconds} s: {left}") from None
    finally:
        await connection.close()
        stop.set()
        await asyncio.gather(*running)
        for engine in engines:
            await engine.dispose()


async def outcome(url: str) -> tuple[dict[str, list[str]], list[str]]:
    """The tables, and why events became dead letters."""
    connection = await asyncpg.connect(url)
    dead = await connection.fetch(
        "SELECT entity_type || ' ' || error_message FROM tds_sync_queue WHERE status <> 'completed'"
    )
    await connection.close()
    engine = engine_for(url)
    async with engine.connect() as tx:
        found = await tables(tx)
    await engine.dispose()
    return found, [row[0] for row in dead]


@pytest_asyncio.fixture(loop_scope="session")
async def urls(postgres: Postgres, adopted_template: str) -> AsyncIterator[list[str]]:
    """Two fresh databases."""
    names = [f"test_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    yield [await postgres.create_database(name, template=adopted_template) for name in names]
    for name in names:
        await postgres.drop_database(name)


async def test_the_tables_do_not_depend_on_the_order_of_arrival(urls: list[str]) -> None:
    """In order by one worker, shuffled by two in small batches, and all again: one outcome, and no dead letter."""
    chance = random.Random(11)
    events = history(chance)
    in_order, shuffled = urls
    await put(in_order, events)
    await work(in_order, workers=1, batch_size=1000)
    expected, dead = await outcome(in_order)
    assert dead == []
    assert all(expected[name] for name in ("invoice_items", "product_prices", "payment_applications"))
    await put(shuffled, arriving(events, chance))
    await work(shuffled, workers=2, batch_size=25)
    assert await outcome(shuffled) == (expected, [])
    await again(shuffled)
    await work(shuffled, workers=2, batch_size=200)
    assert await outcome(shuffled) == (expected, [])


async def again(url: str) -> None:
    """Make everything that was ever received pending once more."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "UPDATE tds_sync_queue SET status = 'pending', attempt_count = 0, locked_by = NULL,"
        " lock_expires_at = NULL, completed_at = NULL, processing_result = NULL"
    )
    await connection.close()


@pytest.mark.parametrize("part", [{"amount": 3}, {"cf_other": 1}], ids=["a column", "an unknown key"])
async def test_a_version_that_waits_is_not_overtaken_by_a_deletion(
    engine: AsyncEngine, part: dict[str, Any]
) -> None:
    """A deleted record that a partial version restores keeps the values of its waiting version."""

    def payment(minute: int, operation: Operation = Operation.UPSERT, **said: Any) -> Event:
        stamp = {"payment_id": "40", "updated_time": f"2025-11-04T09:{minute:02d}:00Z"}
        return event(E.PAYMENT, stamp | said, operation=operation)

    whole = payment(1, customer_id="5", amount=1, cf_unknown=7, reference_number="first")
    gone, anew = payment(2, Operation.DELETE), payment(3, **part)
    customer = event(E.CUSTOMER, {"contact_id": "5", "contact_type": "customer"})

    async def after(tx: AsyncConnection, *batches: list[Event]) -> dict[str, list[str]]:
        async with tx.begin_nested() as alone:
            for batch in batches:
                await applied(tx, batch)
            found = await tables(tx)
            await alone.rollback()
        return found

    async with engine.connect() as tx:
        expected = await after(tx, [customer], [whole], [gone], [anew])
        assert '"first"' in expected["invoice_payments"][0]
        async with tx.begin_nested() as alone:
            assert (await outcomes(tx, gone, whole))[1] is Outcome.WAITING
            await alone.rollback()
        assert await after(tx, [gone, whole], [anew], [customer], [whole]) == expected
        assert await after(tx, [gone], [anew], [whole], [customer], [whole]) == expected


@pytest.mark.parametrize("first", ["alone", "in one batch"])
async def test_a_tied_version_whose_parents_are_missing_still_counts_as_arrived(
    engine: AsyncEngine, first: str
) -> None:
    """It lost against one that arrived later. A second delivery of it, after its parents, changes nothing."""

    def adjusted(item: str, minute: int) -> Event:
        record = {"inventory_adjustment_id": "70", "line_items": [{"item_id": item, "quantity_adjusted": 1}]}
        stamped = record | {"last_modified_time": "2025-11-04T09:00:00+0000"}
        return event(E.STOCK_ADJUSTMENT, stamped, created_at=ARRIVED + timedelta(minutes=minute))

    async def product(tx: AsyncConnection, item: str) -> None:
        assert await outcomes(tx, event(E.PRODUCT, {"item_id": item})) == [Outcome.APPLIED]

    lost, won, again = adjusted("2", 1), adjusted("1", 2), adjusted("2", 3)
    async with engine.connect() as tx:
        await product(tx, "1")
        if first == "alone":
            assert await outcomes(tx, won) == [Outcome.APPLIED]
            assert await outcomes(tx, lost) == [Outcome.SUPERSEDED]
        else:
            assert await outcomes(tx, lost, won) == [Outcome.SUPERSEDED, Outcome.APPLIED]
        await product(tx, "2")
        assert await outcomes(tx, again) == [Outcome.SUPERSEDED]
        stored = await tables(tx)
        await tx.rollback()
    async with engine.connect() as tx:
        for item in ("1", "2"):
            await product(tx, item)
        for one in (lost, won, again):
            await applied(tx, [one])
        assert (await tables(tx))["stock_adjustments"] == stored["stock_adjustments"]
