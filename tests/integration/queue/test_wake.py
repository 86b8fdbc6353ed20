"""Events that wait for a parent: woken when it is applied, by that worker or by maintenance, and not before."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.queue import insert, settle, wake
from handlers.queue.claim import claim as claim_events
from handlers.queue.event import EntityType, Event
from handlers.worker.worker import Worker, new_owner
from rehearsal.webhooks import payloads
from tests.integration.queue.events import change, event, missing, row


async def claim(engine: AsyncEngine) -> list[Event]:
    async with engine.begin() as tx:
        return await claim_events(tx, owner="a", limit=100, lease_seconds=60)


async def waiting(engine: AsyncEngine, key: str, *parents: str) -> UUID:
    """An invoice that a worker has put to wait for *parents* for an hour."""
    id_ = await event(engine, key, entity=EntityType.INVOICE)
    async with engine.begin() as tx:
        await claim_events(tx, owner="a", limit=1, lease_seconds=60, ids=[id_])
        await settle.retry_later(
            tx, owner="a", revision="r1", failures=[missing(id_, *parents)], base_seconds=3600
        )
    return id_


async def test_children_wake_when_their_parent_comes(engine: AsyncEngine) -> None:
    """Only events that wait for exactly this record are due at once."""
    mine = await waiting(engine, "1", "4600123")
    await waiting(engine, "2", "46001234")
    other = await waiting(engine, "3", "4600123")
    await change(engine, other, error_code="40P01")
    async with engine.begin() as tx:
        assert await wake.wake_children(tx, ["4600123", "99"]) == {mine}
    assert [each.id for each in await claim(engine)] == [mine]


async def test_a_child_of_two_wakes_when_both_have_come(engine: AsyncEngine) -> None:
    """Woken for each parent, it would have no attempt left for the last one."""
    child = await waiting(engine, "1", "5", "6")
    first = await event(engine, "5", entity=EntityType.CUSTOMER)
    async with engine.begin() as tx:
        assert await wake.wake_children(tx, ["5"]) == set()
        assert await wake.wake_children(tx, ["6", "5"]) == {child}
    await change(engine, child, next_retry_at="sql:now() + interval '1 h'")
    await change(engine, first, status="completed", completed_at="sql:now() - interval '1 h'")
    async with engine.begin() as tx:
        assert await wake.wake_children(tx, ["6"]) == set()
    await change(engine, first, completed_at="sql:now()")
    async with engine.begin() as tx:
        assert await wake.wake_children(tx, ["6"]) == {child}


@pytest.mark.parametrize("index", ["", "DROP INDEX IF EXISTS ix_tds_sync_queue_waiting_for"])
async def test_waking_needs_no_index(engine: AsyncEngine, index: str) -> None:
    """A database that was adopted before has none: the same children wake."""
    async with engine.begin() as tx:
        await tx.execute(text(index or "SELECT"))
    children = {await waiting(engine, f"i{n}", str(n % 3)) for n in range(9)}
    async with engine.begin() as tx:
        woken = await wake.wake_children(tx, ["0", "2", "7"])
    assert len(woken & children) == len(woken) == 6


async def test_the_sweep_wakes_whose_parents_came_unseen(engine: AsyncEngine) -> None:
    """It finds a child whose parents were all completed since it was tried, looks at few, and spins on none."""
    child = await waiting(engine, "1", "5", "6")
    for key in ("5", "6"):
        async with engine.begin() as tx:
            assert await wake.wake_arrived(tx) == set()
        await event(engine, key, status="completed", completed_at="sql:now()")
    later = await waiting(engine, "2", "77")
    await change(engine, later, next_retry_at="sql:now() + interval '2 h'")
    async with engine.begin() as tx:
        assert await wake.wake_arrived(tx, limit=1) == set()
        assert await wake.wake_arrived(tx, limit=2) == {child}
        assert await wake.wake_arrived(tx) == set()
    soon = "sql:now() + interval '1 h'"
    await change(engine, child, next_retry_at=soon, started_at="sql:now() + interval '11 seconds'")
    async with engine.begin() as tx:
        assert await wake.wake_arrived(tx) == set()


@contextmanager
def dying_worker(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that kills itself after its first commit; gone at the end in any case."""
    words = [sys.executable, "-m", "tests.integration.worker.dying_worker", url]
    child = subprocess.Popen(words, cwd=Path(__file__).parents[3])
    try:
        yield child
    finally:
        child.kill()
        child.wait(5)


async def test_a_child_is_applied_soon_though_its_parents_worker_was_killed(
    engine: AsyncEngine, database_url: str
) -> None:
    """A worker killed between its commit and the wake-up leaves a waiting child, which maintenance wakes."""
    at = datetime(2025, 11, 10, 9, tzinfo=UTC)
    customer, item = payloads.customer(1, at), payloads.product(1, at)
    invoice = payloads.invoice(1, at, customer_number=1, item=item)
    async with engine.begin() as tx:
        for entity, key, record in (
            (EntityType.CUSTOMER, customer["contact_id"], customer),
            (EntityType.PRODUCT, item["item_id"], item),
        ):
            await insert.insert_event(tx, entity=entity, key=key, payload_text=json.dumps(record))
    async with engine.connect() as lock:
        await lock.execute(text("SELECT pg_advisory_lock(4242)"))
        with dying_worker(database_url) as dying:
            await until(engine, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            async with engine.begin() as tx:
                child = await insert.insert_event(
                    tx,
                    entity=EntityType.INVOICE,
                    key=invoice["invoice_id"],
                    payload_text=json.dumps(invoice),
                )
            living = Worker(engine, owner=new_owner("living"), revision="r1", lease_seconds=2)
            await living.step()
            now = await row(engine, child)
            assert (now["status"], now["error_code"]) == ("retry", "missing_parent")
            await lock.execute(text("SELECT pg_advisory_unlock(4242)"))
            assert await asyncio.to_thread(dying.wait, 15) == -signal.SIGKILL
    stop = asyncio.Event()
    running = asyncio.create_task(living.run(stop))
    await until(engine, "SELECT 1 FROM invoices")
    stop.set()
    await running
    now = await row(engine, child)
    assert (now["status"], now["attempt_count"]) == ("completed", 1)


async def until(engine: AsyncEngine, question: str, seconds: float = 20) -> None:
    """Wait until *question* has an answer."""
    deadline = time.monotonic() + seconds
    while True:
        async with engine.connect() as tx:
            if (await tx.execute(text(question))).first():
                return
        assert time.monotonic() < deadline, f"never true: {question}"
        await asyncio.sleep(0.02)
