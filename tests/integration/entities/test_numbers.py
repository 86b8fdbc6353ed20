"""Unique numbers that move to another record, are swapped, or are taken by two: freed first, taken then, waited for."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.entities.apply import apply_events
from handlers.queue.event import EntityType, Event, Operation, Outcome
from handlers.queue.insert import insert_event
from tests.integration.entities.events import ARRIVED, applied, event, tables
from tests.integration.queue.events import row as queue_row
from tests.integration.worker.steps import worker

E = EntityType
APPLIED, WAITING = Outcome.APPLIED, Outcome.WAITING


def order(key: str, number: str, minute: int, **said: Any) -> Event:
    record = {"salesorder_id": key, "salesorder_number": number} | said
    stamp = f"2025-11-04T09:{minute:02d}:00Z"
    return event(
        E.SALES_ORDER, record | {"last_modified_time": stamp}, created_at=ARRIVED + timedelta(minutes=minute)
    )


async def numbers(
    tx: AsyncConnection, table: str = "sales_orders", column: str = "order_number"
) -> dict[str, str]:
    key = "zoho_salesorder_id" if table == "sales_orders" else "zoho_invoice_id"
    rows = await tx.execute(text(f"SELECT {key}, {column} FROM {table}"))
    return {row[0]: row[1] for row in rows}


async def settle(tx: AsyncConnection, batches: list[list[Event]]) -> None:
    """Apply the batches; what waits comes again."""
    for _ in range(5):
        waiting = []
        for batch in batches:
            results = await applied(tx, batch)
            waiting += [one for one, result in zip(batch, results, strict=True) if result.outcome is WAITING]
        if not waiting:
            return
        batches = [[one] for one in waiting]
    raise AssertionError("some wait for ever")


HISTORIES = {
    "moved": [order("1", "A", 0), order("1", "B", 1), order("2", "A", 2)],
    "swapped": [order("1", "A", 0), order("2", "B", 0), order("1", "B", 2), order("2", "A", 1)],
    "in a ring": [
        *(order(key, key, 0) for key in "123"),
        *(order(key, number, 1) for key, number in zip("123", "231", strict=True)),
    ],
    "reused after a delete": [
        order("1", "A", 0),
        event(E.SALES_ORDER, {"salesorder_id": "1", "last_modified_time": "2025-11-04T09:01:00Z"},
              operation=Operation.DELETE),
        order("2", "A", 2),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", HISTORIES)
async def test_numbers_end_where_they_are_at_the_source(engine: AsyncEngine, name: str) -> None:
    """In any order, together or one by one: the same rows, and nothing is refused."""
    history = HISTORIES[name]
    orders = list(itertools.permutations(history))
    async with engine.connect() as tx:
        outcomes = []
        for chosen in orders[:: max(1, len(orders) // 24)]:
            for size in (1, len(history)):
                async with tx.begin_nested() as alone:
                    await settle(tx, [list(chosen[at : at + size]) for at in range(0, len(chosen), size)])
                    outcomes.append(await tables(tx))
                    await alone.rollback()
    assert all(found == outcomes[0] for found in outcomes)
    assert '"order_number": "A"' in str(outcomes[0]) or name == "in a ring"


async def test_stored_records_swap_their_numbers_in_one_batch(engine: AsyncEngine) -> None:
    """All numbers that move are freed before the first one is taken."""
    ring = [order(key, number, 1) for key, number in zip("1234", "2341", strict=True)]
    async with engine.begin() as tx:
        await applied(tx, [order(key, key, 0) for key in "1234"])
        assert {result.outcome for result in await applied(tx, ring)} == {APPLIED}
        assert await numbers(tx) == {"1": "2", "2": "3", "3": "4", "4": "1"}


async def test_a_number_that_another_record_has_is_waited_for(engine: AsyncEngine) -> None:
    """The row is written without it and gives up its own, the event names the other record and is woken by it."""
    async with engine.begin() as tx:
        assert [r.outcome for r in await applied(tx, [order("1", "A", 0), order("2", "B", 0)])] == [
            APPLIED
        ] * 2
        (result,) = await applied(tx, [order("1", "B", 1, total=7)])
        assert (result.outcome, result.field, result.number) == (WAITING, "salesorder_number", "order_number")
        assert result.reason == "waits until SalesOrder 2 gives up order_number B"
        assert set(result.parents) == {"1", "2"}
        assert await numbers(tx) == {"1": None, "2": "B"}
        assert [r.outcome for r in await applied(tx, [order("2", "A", 2)])] == [APPLIED]
        assert [r.outcome for r in await applied(tx, [order("1", "B", 1, total=7)])] == [APPLIED]
        assert await numbers(tx) == {"1": "B", "2": "A"}


async def test_a_number_of_a_row_that_the_source_does_not_know_is_waited_for(engine: AsyncEngine) -> None:
    """Somebody typed it into the ERP: the reason names the table, and nothing of that row is touched."""
    async with engine.begin() as tx:
        await applied(tx, [order("1", "A", 0)])
        await tx.execute(
            text("ALTER TABLE invoices ADD CONSTRAINT one UNIQUE (customer_name, invoice_number)")
        )
        await tx.execute(text("INSERT INTO invoices (customer_name, invoice_number) VALUES ('c', 'I-1')"))
    async with engine.connect() as tx:
        tx.info.pop("unique_columns", None)
        said = {"invoice_id": "30", "customer_name": "c", "invoice_number": "I-1"}
        (result,) = await applied(tx, [event(E.INVOICE, said)])
        assert (result.outcome, result.reason) == (
            WAITING,
            "waits until a row of invoices gives up invoice_number I-1",
        )
        (other,) = await applied(tx, [event(E.INVOICE, said | {"invoice_id": "31", "customer_name": "d"})])
        assert other.outcome is APPLIED


async def test_a_worker_swaps_numbers_in_two_batches(engine: AsyncEngine) -> None:
    """Each takes what the other has: no attempt is burnt, none dies, and both are right within a few steps."""
    ids = []
    for key, number, minute in (("1", "A", 0), ("2", "B", 0), ("1", "B", 1), ("2", "A", 2)):
        payload = order(key, number, minute).payload
        async with engine.begin() as tx:
            ids.append(await insert_event(tx, entity=E.SALES_ORDER, key=key, payload_text=payload))
    one = worker(engine, apply_events, batch_size=1)
    for _ in range(12):
        if not await one.step():
            break
    rows = [await queue_row(engine, id_) for id_ in ids]
    assert [(found["status"], found["attempt_count"]) for found in rows] == [("completed", 1)] * 4
    async with engine.connect() as tx:
        assert await numbers(tx) == {"1": "B", "2": "A"}


async def test_two_workers_that_take_one_number_at_once(engine: AsyncEngine) -> None:
    """The second finds the number taken when the first commits: it waits for that record, and nothing dies."""
    async with engine.connect() as first, engine.connect() as second:
        await applied(first, [order("1", "A", 0)])
        late = asyncio.create_task(applied(second, [order("2", "A", 1), order("3", "C", 1)]))
        await asyncio.sleep(0.3)
        await first.commit()
        results = await late
        assert [result.outcome for result in results] == [WAITING, APPLIED]
        assert set(results[0].parents) == {"1", "2"}
        await second.commit()
    async with engine.connect() as tx:
        assert await numbers(tx) == {"1": "A", "2": None, "3": "C"}


async def test_a_stamp_in_the_future_is_refused_by_name(engine: AsyncEngine) -> None:
    """It would outrank all later versions for ever; one of tomorrow is a matter of time zones."""
    async with engine.connect() as tx:
        now = (await tx.execute(text("SELECT now()"))).scalar_one()
        told = []
        for ahead in (timedelta(hours=23), timedelta(hours=25), timedelta(days=36500)):
            said = {"invoice_id": "30", "updated_time": (now + ahead).isoformat(timespec="seconds")}
            (result,) = await applied(tx, [event(E.INVOICE, said)])
            told.append((result.outcome, result.field))
        assert told == [(APPLIED, None), (Outcome.REFUSED, "updated_time"), (Outcome.REFUSED, "updated_time")]
        assert "more than a day in the future" in result.reason
