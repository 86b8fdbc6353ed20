"""Replaying a whole history in any order, in any batches, any number of times, leaves the same tables."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.queue.event import EntityType, Event, Operation, Outcome
from tests.integration.entities.events import (
    ARRIVED,
    ID_KEYS,
    applied,
    event,
    example_records,
    parents_of,
    tables,
)

E = EntityType


def _stamp(minute: int) -> str:
    """Stamps with different offsets, some of them equal."""
    hour, zone = [(9, "+0000"), (12, "+0300"), (6, "-0300")][minute % 3]
    return f"2025-11-04T{hour:02d}:{minute // 2:02d}:00{zone}"


def history(chance: random.Random) -> list[Event]:
    """A made-up history of few records: partial payloads, equal stamps, deletes, shrinking lists, blanks."""
    events = []

    def say(
        entity: EntityType, key: str, minute: int, operation: Operation = Operation.UPSERT, **said: Any
    ) -> None:
        kept = {name: value for name, value in said.items() if chance.random() < 0.7}
        if chance.random() < 0.8:
            kept["last_modified_time"] = _stamp(minute)
        if entity in (E.CUSTOMER, E.VENDOR):
            kept["contact_type"] = entity.value.lower()
        record = {ID_KEYS[entity]: key, **kept}
        events.append(
            event(entity, record, operation=operation, created_at=ARRIVED + timedelta(minutes=minute))
        )

    for minute in range(14):
        product, customer = chance.choice("12"), chance.choice("56")
        line = [
            {"item_id": item, "quantity": chance.choice([1, "1.50", -2]), "rate": minute}
            for item in chance.sample("12", chance.randint(0, 2))
        ]
        say(
            E.PRODUCT,
            product,
            minute,
            name=f"n{minute}",
            rate=chance.choice(["", minute]),
            stock_on_hand=minute,
        )
        say(E.CUSTOMER, customer, minute, contact_name=f"c{minute}", payment_terms=-3, contact_persons="")
        say(E.VENDOR, "8", minute, contact_name=f"v{minute}")
        say(E.SALES_ORDER, "20", minute, customer_id=customer, total=minute, line_items=line)
        say(
            E.INVOICE,
            chance.choice(["30", "31"]),
            minute,
            customer_id=customer,
            balance=minute,
            line_items=line,
        )
        applications = [
            {"invoice_id": key, "amount_applied": minute} for key in chance.sample(["30", "31"], 2)
        ]
        say(E.PAYMENT, "40", minute, customer_id=customer, amount=minute, invoices=applications)
        say(E.BILL, "50", minute, vendor_id="8", total=minute, line_items=line)
        say(E.CREDIT_NOTE, "60", minute, customer_id=customer, total=minute, line_items=line)
        adjusted = [{"item_id": product, "quantity_adjusted": minute}]
        say(E.STOCK_ADJUSTMENT, "70", minute, adjustment_type="quantity", line_items=adjusted)
        prices = [
            {"item_id": item["item_id"], "pricebook_rate": chance.choice(["", 0, minute])} for item in line
        ]
        say(E.PRICE_LIST, "80", minute, name=f"p{minute}", pricebook_items=prices)
        say(E.USER, "90", minute, name=f"u{minute}", email=chance.choice(["", "a@example.com"]))
        gone = chance.choice([E.PRODUCT, E.CUSTOMER, E.INVOICE, E.SALES_ORDER, E.PRICE_LIST])
        if chance.random() < 0.3:
            key = {E.PRODUCT: "1", E.CUSTOMER: "5", E.INVOICE: "31", E.SALES_ORDER: "20", E.PRICE_LIST: "80"}[
                gone
            ]
            say(gone, key, minute, Operation.DELETE)
    for entity, keys in ((E.PRODUCT, "12"), (E.CUSTOMER, "56"), (E.VENDOR, "8"), (E.INVOICE, ("30", "31"))):
        for key in keys:
            say(entity, key, 0)
    return events


async def replay(tx: AsyncConnection, events: list[Event], batch_size: int) -> None:
    """Apply *events* in batches; what waits for a parent comes again until nothing waits any more."""
    todo = events
    for _ in range(20):
        waiting = []
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            for one, result in zip(batch, await applied(tx, batch), strict=True):
                assert result.outcome is not Outcome.REFUSED, result.reason
                if result.outcome is Outcome.WAITING:
                    waiting.append(one)
        if not waiting:
            return
        assert len(waiting) < len(todo) or todo is events, "nothing moves any more"
        todo = waiting
    raise AssertionError(f"{len(todo)} events wait for ever")


@pytest.mark.parametrize("seed", range(6))
async def test_any_order_any_batches_any_number_of_times(engine: AsyncEngine, seed: int) -> None:
    """The tables after a history depend on what happened, not on how it arrived."""
    chance = random.Random(seed)
    events = history(chance)
    async with engine.connect() as tx:
        seen = []
        for size in (len(events) * 2, 1, 7, 40):
            async with tx.begin_nested() as alone:
                again = events + chance.sample(events, len(events) // 2)
                if size != 1:
                    chance.shuffle(again)
                await replay(tx, again, size)
                seen.append(await tables(tx))
                await alone.rollback()
        assert seen[0]["invoices"]
        for other in seen[1:]:
            assert other == seen[0]


async def test_the_examples_in_any_order(engine: AsyncEngine) -> None:
    """All public examples, where one id often belongs to several documents, have one outcome too."""
    chance = random.Random(1)
    events: list[Event] = []
    for at, (file, entity, record) in enumerate(example_records()):
        if file == "payment/6.json":
            continue
        events += parents_of(entity, record)
        events.append(event(entity, record, created_at=ARRIVED + timedelta(seconds=at)))
    async with engine.connect() as tx:
        seen = []
        for size in (1000, 5, 30):
            async with tx.begin_nested() as alone:
                chance.shuffle(events)
                await replay(tx, events, size)
                seen.append(await tables(tx))
                await alone.rollback()
        assert seen[0] == seen[1] == seen[2]
