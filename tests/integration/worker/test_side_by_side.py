"""The ERP's own workers and ours on one queue, as while a release is on one host and not yet on the other."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg
import pytest

from handlers.queue.event import EntityType
from handlers.queue.insert import insert_event
from handlers.queue.redrive import redrive
from handlers.worker.worker import Worker, new_owner
from rehearsal import erp
from tests.conftest import engine_for

EVENTS = 1500
REPAIRED = {
    b"processing_started_at": b"started_at",
    b"processing_completed_at": b"completed_at",
    b"local_entity_id": b"target_entity_id",
}
"""The columns as the queue really has them: with these the old workers do apply what they take."""

WATCHED = """
    CREATE TABLE moved (
        at bigint GENERATED ALWAYS AS IDENTITY, event uuid, was text, is_now text, held_by text, held boolean,
        holds text
    );
    CREATE FUNCTION note_move() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO moved (event, was, is_now, held_by, held, holds)
        VALUES (new.id, old.status, new.status, old.locked_by,
                coalesce(old.locked_by IS NOT NULL AND old.lock_expires_at > clock_timestamp(), false),
                new.locked_by);
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_move AFTER UPDATE ON tds_sync_queue FOR EACH ROW EXECUTE FUNCTION note_move();
"""
"""Notes every committed change of an event: what it was, and who held it."""


@contextmanager
def old_workers(folder: Path, url: str, repairs: dict[bytes, bytes]) -> Iterator[None]:
    """The workers of the ERP's broken revision, with *repairs* made in its sources."""
    for name, source in erp.sources("broken").items():
        for wrong, right in repairs.items():
            source = source.replace(wrong, right)
        (folder / name).write_bytes(source)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    with running([sys.executable, "workers.py"], folder, url):
        yield


@contextmanager
def running(words: list[str], folder: Path, url: str) -> Iterator[None]:
    """A worker process in *folder* that must exit with 0 on SIGTERM."""
    with (folder / "log").open("ab") as log:
        child = subprocess.Popen(
            words, cwd=folder, env=os.environ | {"ERP_DATABASE_URL": url}, stdout=log, stderr=log
        )
    try:
        yield
        assert child.poll() is None, (folder / "log").read_text()[-3000:]
        child.terminate()
        child.wait(12)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait(5)


@contextmanager
def our_worker(folder: Path, url: str) -> Iterator[None]:
    """`runbook worker` as the fixed revision runs it."""
    command = str(Path(sys.executable).with_name("runbook"))
    words = [command, "worker", "--database-url", "env:ERP_DATABASE_URL", "--batch-size", "20"]
    with running(words, folder, url):
        yield


async def at_rest(connection: asyncpg.Connection, seconds: float = 40) -> Counter[str]:
    """Wait until nothing is open any more; how many events ended how."""
    deadline = time.monotonic() + seconds
    while True:
        rows = await connection.fetch("SELECT status::text, count(*) FROM tds_sync_queue GROUP BY 1")
        found = Counter({row[0]: row[1] for row in rows})
        if not found.keys() - {"completed", "dead_letter"}:
            return found
        assert time.monotonic() < deadline, f"not settled in time: {found}"
        await asyncio.sleep(0.1)


async def put(url: str) -> None:
    """Products with one event each."""
    engine = engine_for(url)
    async with engine.begin() as tx:
        for number in range(EVENTS):
            await insert_event(
                tx,
                entity=EntityType.PRODUCT,
                key=str(number),
                payload_text=json.dumps(
                    {"item_id": str(number), "name": f"item {number}", "sku": f"s{number}"}
                ),
            )
    await engine.dispose()


async def at_work(connection: asyncpg.Connection, parties: int, seconds: float = 30) -> None:
    """Wait until so many of the two, ours and theirs, have taken events."""
    deadline = time.monotonic() + seconds
    while (
        await connection.fetchval(
            "SELECT count(DISTINCT holds LIKE 'worker-_') FROM moved WHERE holds IS NOT NULL"
        )
        < parties
    ):
        assert time.monotonic() < deadline, f"not {parties} of ours and theirs work"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("repairs", [{}, REPAIRED], ids=["broken", "repaired"])
async def test_neither_takes_what_the_other_holds_or_has_done(
    database_url: str, tmp_path: Path, repairs: dict[bytes, bytes]
) -> None:
    """No lease is taken over in its time, nothing completed is touched again, and nothing is lost."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(WATCHED)
        with ExitStack() as stack:
            stack.enter_context(old_workers(theirs, database_url, repairs))
            await put(database_url)
            # Ours would be through with all before theirs look again.
            await at_work(connection, 1)
            stack.enter_context(our_worker(ours, database_url))
            await at_work(connection, 2)
            ended = await at_rest(connection)
        moves = await connection.fetch(
            "SELECT event, was, is_now, held_by, held, holds FROM moved ORDER BY at"
        )
        stolen = [m for m in moves if m["held"] and m["holds"] not in (None, m["held_by"])]
        again = [m for m in moves if m["was"] == "completed"]
        assert stolen == []
        assert again == []
        assert ended.total() == EVENTS
        if repairs:
            assert ended["completed"] == EVENTS
        dead = await connection.fetch("SELECT id FROM tds_sync_queue WHERE status = 'dead_letter'")
        engine = engine_for(database_url)
        async with engine.begin() as tx:
            await redrive(tx, [row["id"] for row in dead])
        await engine.dispose()
        with our_worker(ours, database_url):
            assert await at_rest(connection) == {"completed": EVENTS}
        assert await connection.fetchval("SELECT count(*) FROM products") == EVENTS
    finally:
        await connection.close()


async def test_an_old_list_in_an_old_workers_hand_undoes_nothing(database_url: str, tmp_path: Path) -> None:
    """What ours buried or put to wait is not taken again by a worker that read its list while all was pending."""
    slowly = REPAIRED | {
        b"local_id = await HANDLERS": b"await asyncio.sleep(0.3)\n                local_id = await HANDLERS"
    }
    connection = await asyncpg.connect(database_url)
    engine = engine_for(database_url)
    try:
        await connection.execute(WATCHED)
        with old_workers(tmp_path, database_url, slowly):
            async with engine.begin() as tx:
                for number in range(20):
                    refused = {"item_id": f"p{number}", "name": "x", "sku": f"s{number}", "rate": {"a": 1}}
                    early = {"invoice_id": f"i{number}", "customer_id": "never", "total": 1}
                    for entity, key, record in (
                        (EntityType.PRODUCT, f"p{number}", refused),
                        (EntityType.INVOICE, f"i{number}", early),
                    ):
                        await insert_event(tx, entity=entity, key=key, payload_text=json.dumps(record))
            await began(connection, 2)
            ours = Worker(engine, owner=new_owner("test"), revision="r1")
            await ours.step()
            assert ours.tally["dead_letter"] > 5
            assert ours.tally["retry"] > 5
            settled = (
                "SELECT q::text FROM tds_sync_queue q WHERE processing_result ->> 'worker' = $1 ORDER BY id"
            )
            before = await connection.fetch(settled, ours.owner)
            async with engine.begin() as tx:
                last = json.dumps({"item_id": "last", "name": "last", "sku": "last"})
                await insert_event(tx, entity=EntityType.PRODUCT, key="last", payload_text=last)
            await applied_by_them(connection, "last")
            assert await connection.fetch(settled, ours.owner) == before
            assert ours.tally["dead_letter"] + ours.tally["retry"] == len(before)
    finally:
        await engine.dispose()
        await connection.close()


async def began(connection: asyncpg.Connection, workers: int, seconds: float = 20) -> None:
    """Wait until so many of the old workers have read their lists and taken something."""
    deadline = time.monotonic() + seconds
    count = "SELECT count(DISTINCT holds) FROM moved WHERE holds LIKE 'worker-_'"
    while await connection.fetchval(count) < workers:
        assert time.monotonic() < deadline, "the old workers do not begin"
        await asyncio.sleep(0.01)


async def applied_by_them(connection: asyncpg.Connection, key: str, seconds: float = 20) -> None:
    """Wait for an event that came after the old workers had read their lists: then these have been walked through."""
    deadline = time.monotonic() + seconds
    status = "SELECT status::text FROM tds_sync_queue WHERE source_entity_id = $1"
    while await connection.fetchval(status, key) != "completed":
        assert time.monotonic() < deadline, "the old workers have not come to the last event"
        await asyncio.sleep(0.05)
