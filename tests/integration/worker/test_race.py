"""Four workers race for thousands of events while they and their database are killed: the effects are those of one."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.migrate import upgrade
from handlers.erp.adopt import adopt
from handlers.queue.event import QUEUE_NAMES, EntityType, Event
from handlers.worker.worker import Worker
from rehearsal.postgres import Postgres
from tests.conftest import engine_for
from tests.integration.entities.events import ARRIVED, event, tables
from tests.integration.entities.test_replay import history

E = EntityType
WORLDS, WORKERS, CHUNKS = 20, 4, 12
ATTEMPTS_MAX = 50
"""Each kill and each parent that comes costs an attempt; how many there may be is not what is raced for."""

WATCHED = """
    CREATE TABLE settled (event uuid NOT NULL, status text NOT NULL, worker text);
    CREATE FUNCTION note_settled() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO settled VALUES (new.id, new.status, old.locked_by);
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_settled AFTER UPDATE ON tds_sync_queue FOR EACH ROW
        WHEN (new.status IN ('completed', 'dead_letter', 'failed')) EXECUTE FUNCTION note_settled();
    ALTER TABLE products ADD CONSTRAINT no_poison CHECK (name <> 'poison');
"""
"""Notes every committed end of an event, so that a second one is seen; and refuses what only a database can see."""

INSERT = """
    INSERT INTO tds_sync_queue (id, inbox_event_id, entity_type, source_entity_id, operation_type,
        validated_payload, created_at, max_retry_attempts)
    VALUES ($1, $2, $3::text::tds_entity_type, $4, $5::text::tds_operation_type, $6::text::jsonb, $7, $8)
"""


def apart(value: Any, world: int) -> Any:
    """*value* with every record's id in it moved into a *world* of its own."""
    if isinstance(value, dict):
        return {
            key: f"{world}00{inner}" if key.endswith("_id") else apart(inner, world)
            for key, inner in value.items()
        }
    return [apart(each, world) for each in value] if isinstance(value, list) else value


def worlds(chance: random.Random) -> list[Event]:
    """Histories of all kinds of record, side by side, in one order of age."""
    events = []
    for world in range(1, WORLDS + 1):
        for one in history(chance):
            payload = json.dumps(apart(json.loads(one.payload), world))
            events.append(one._replace(key=f"{world}00{one.key}", payload=payload, attempts_max=ATTEMPTS_MAX))
    return sorted(events, key=lambda each: (each.created_at, each.id))


def poison() -> list[Event]:
    """Events that can never be applied: refused by the mapper, by the database only, and without any parent."""
    bad = [
        event(E.PRODUCT, {"item_id": f"77{n}", "name": "x", "rate": "not a number"}, created_at=ARRIVED)
        for n in range(10)
    ]
    bad += [event(E.PRODUCT, {"item_id": f"88{n}", "name": "poison"}, created_at=ARRIVED) for n in range(10)]
    orphans = [
        event(E.INVOICE, {"invoice_id": f"99{n}", "customer_id": "404", "total": 1}, created_at=ARRIVED)
        for n in range(10)
    ]
    return bad + [one._replace(attempts_max=1) for one in orphans]


async def put(url: str, events: Sequence[Event]) -> None:
    """Write *events* into the queue as they were received, in one transaction."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            inbox = uuid.uuid4()
            await connection.execute(
                "INSERT INTO tds_inbox_events (id, source_type, entity_type, source_entity_id, raw_payload,"
                " content_hash) VALUES ($1, 'zoho', 'product', 'all', '{}', 'none')",
                inbox,
            )
            await connection.executemany(
                INSERT,
                [
                    (
                        *(one.id, inbox, QUEUE_NAMES[one.entity], one.key, one.operation.value),
                        *(one.payload, one.created_at, one.attempts_max),
                    )
                    for one in events
                ],
            )
            await connection.execute("NOTIFY tds_sync_queue")
    finally:
        await connection.close()


@dataclass(kw_only=True)
class Crowd:
    """Worker processes as a deployed ERP runs them, each killed and replaced as often as the test likes."""

    url: str
    log: Path
    alive: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    killed: int = 0

    async def add(self) -> None:
        """Start one more."""
        words = ("worker", "--database-url", "env:RACE_URL", "--batch-size", "150", "--lease-seconds", "5")
        with self.log.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("runbook")),
                *words,
                env=os.environ | {"RACE_URL": self.url},
                stdout=log,
                stderr=log,
            )
        self.alive[child.pid] = child

    async def kill_a_holder(self, chance: random.Random, seconds: float = 6) -> None:
        """SIGKILL a worker that has events at this moment, and start another in its place."""
        deadline = time.monotonic() + seconds
        connection = await asyncpg.connect(self.url)
        try:
            while time.monotonic() < deadline:
                rows = await connection.fetch(
                    "SELECT locked_by FROM tds_sync_queue WHERE status = 'processing'"
                    " UNION SELECT owner FROM runbook.in_hand"
                )
                holders = [pid for row in rows if (pid := int(row[0].split("-")[-2])) in self.alive]
                if holders:
                    child = self.alive.pop(chance.choice(holders))
                    child.kill()
                    await child.wait()
                    self.killed += 1
                    await self.add()
                    return
                await asyncio.sleep(0.01)
        finally:
            await connection.close()

    async def end(self) -> list[int]:
        """Tell all to stop; their exit codes."""
        for child in self.alive.values():
            child.terminate()
        return [await asyncio.wait_for(child.wait(), 15) for child in self.alive.values()]

    async def clear(self) -> None:
        """Leave no process behind, whatever happened."""
        for child in self.alive.values():
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def come_to_rest(url: str, number: int, seconds: float) -> None:
    """Wait until *number* events are settled.

    A worker that is killed between its commit and its call to wake the children leaves them to their own
    retry, minutes later: when nothing else is left to do, that time is brought forward.
    """
    deadline = time.monotonic() + seconds
    connection = await asyncpg.connect(url)
    try:
        while True:
            rows = await connection.fetch(
                "SELECT CASE WHEN next_retry_at > now() THEN 'later' ELSE status::text END, count(*)"
                " FROM tds_sync_queue GROUP BY 1"
            )
            found = {row[0]: row[1] for row in rows}
            if found.get("completed", 0) + found.get("dead_letter", 0) == number:
                return
            assert time.monotonic() < deadline, f"not settled in time: {found}"
            if not found.keys() - {"completed", "dead_letter", "later"}:
                await connection.execute(
                    # As if the time in which a parent may still come were over.
                    "UPDATE tds_sync_queue SET next_retry_at = now(), processing_result ="
                    " coalesce(processing_result, '{}') || '{\"waiting_since\": 0}' WHERE status = 'retry'"
                    " AND error_code IN ('missing_parent', 'lease_expired')"
                )
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Postgres]:
    """A server that this test may break."""
    server = Postgres.start(tmp_path / "postgres")
    yield server
    server.stop()


async def new_database(server: Postgres, name: str) -> str:
    """The ERP's tables, adopted, that note how events end."""
    url = await server.create_database(name)
    connection = await asyncpg.connect(url)
    await connection.execute(files("rehearsal").joinpath("erp.sql").read_text(encoding="utf-8"))
    await connection.close()
    engine = engine_for(url)
    await adopt(engine)
    await upgrade(engine)
    await engine.dispose()
    connection = await asyncpg.connect(url)
    await connection.execute(WATCHED)
    await connection.close()
    return url


async def contents(url: str) -> dict[str, list[str]]:
    """All that the handlers have written there."""
    engine = engine_for(url)
    try:
        async with engine.connect() as tx:
            return await tables(tx)
    finally:
        await engine.dispose()


async def once_in_order(url: str, events: Sequence[Event]) -> dict[str, list[str]]:
    """What one worker makes of *events* that all lie there in their order before it begins."""
    await put(url, events)
    engine: AsyncEngine = engine_for(url)
    try:
        worker = Worker(engine, owner="alone", revision="r1", poll_seconds=0.05)
        waiting = asyncio.create_task(come_to_rest(url, len(events), 30))
        await worker.run_until_settled([one.id for one in events], 30)
        await waiting
    finally:
        await engine.dispose()
    return await contents(url)


async def test_killed_workers_and_a_crashed_database_leave_what_one_worker_would(
    own_server: Postgres, tmp_path: Path
) -> None:
    """Four workers, SIGKILL in mid batch, the database stopped at once: each event ends once, with one effect."""
    chance = random.Random(5)
    good, bad = worlds(chance), poison()
    raced, alone = await new_database(own_server, "raced"), await new_database(own_server, "alone")
    arriving = good + bad
    chance.shuffle(arriving)
    crowd = Crowd(url=raced, log=tmp_path / "workers.log")
    began = time.monotonic()
    try:
        for _ in range(WORKERS):
            await crowd.add()
        for number in range(CHUNKS):
            await put(raced, arriving[number::CHUNKS])
            if number % 2:
                await crowd.kill_a_holder(chance)
            if number == CHUNKS // 2:
                await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
                await asyncio.to_thread(own_server.restart)
        await come_to_rest(raced, len(arriving), 60)
        print(f"raced {len(arriving)} events in {time.monotonic() - began:.1f} s, {crowd.killed} killed")
        codes = await crowd.end()
    finally:
        await crowd.clear()
    assert codes == [0] * WORKERS
    # On a crowded machine not every try meets a worker that holds something.
    assert crowd.killed >= CHUNKS // 4
    connection = await asyncpg.connect(raced)
    ends = await connection.fetch("SELECT event, status FROM settled")
    held = await connection.fetchval("SELECT count(*) FROM tds_sync_queue WHERE status = 'processing'")
    await connection.close()
    assert Counter(row["event"] for row in ends) == {one.id: 1 for one in arriving}
    assert {row["event"] for row in ends if row["status"] != "completed"} == {one.id for one in bad}
    assert held == 0
    expected = await once_in_order(alone, good + bad)
    assert expected["invoices"]
    assert expected["products"]
    found = await contents(raced)
    # Only what differs: the whole of it is a page for each table.
    assert {name: [row for row in found[name] if row not in rows] for name, rows in expected.items()} == {
        name: [row for row in rows if row not in found[name]] for name, rows in expected.items()
    }
    assert found == expected
