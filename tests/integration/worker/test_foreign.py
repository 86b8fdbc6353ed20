"""A newer event of a record in an old worker's hands: ours must not write what is older over it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.entities.apply import apply_events
from handlers.queue.claim import claim
from handlers.queue.event import EntityType, Event, Result
from handlers.queue.insert import insert_event
from handlers.queue.redrive import redrive
from handlers.worker.foreign import OWNER_PATTERN
from handlers.worker.worker import Worker, new_owner
from tests.integration.queue.events import change, row

AT = datetime(2025, 11, 10, 9, tzinfo=UTC)
APPLY_AS_THE_OLD_ONE_DOES = """
    INSERT INTO products (zoho_item_id, name, sku, price, updated_at) VALUES ($1, $2, '', 0, now())
    ON CONFLICT (zoho_item_id) DO UPDATE SET name = excluded.name, updated_at = now()
"""


async def product(engine: AsyncEngine, key: str, version: int, *, age: float = 0, **columns: Any) -> UUID:
    """The *version*-th change of a product, named after it, that arrived *age* seconds ago."""
    record = {
        "item_id": key,
        "name": f"v{version}",
        "last_modified_time": (AT + timedelta(minutes=version)).isoformat(),
    }
    async with engine.begin() as tx:
        id_ = await insert_event(
            tx, entity=EntityType.PRODUCT, key=key, payload_text=json.dumps({"item": record})
        )
        await tx.execute(
            text("UPDATE tds_sync_queue SET created_at = now() - make_interval(secs => :age) WHERE id = :id"),
            {"age": age, "id": id_},
        )
    await change(engine, id_, **columns)
    return id_


async def old_worker_writes(engine: AsyncEngine, key: str, name: str) -> None:
    async with engine.begin() as tx:
        statement = APPLY_AS_THE_OLD_ONE_DOES.replace("$1", ":key").replace("$2", ":name")
        await tx.execute(text(statement), {"key": key, "name": name})


async def stored(engine: AsyncEngine, key: str) -> tuple[str, datetime | None]:
    async with engine.connect() as tx:
        found = await tx.execute(
            text("SELECT name, zoho_modified_at FROM products WHERE zoho_item_id = :key"), {"key": key}
        )
        name, stamp = found.one()
    return name, stamp


def worker(engine: AsyncEngine, **settings: Any) -> Worker:
    return Worker(engine, owner=new_owner("test"), revision="r1", **settings)


async def test_what_an_old_worker_applied_is_not_overwritten_by_what_is_older(engine: AsyncEngine) -> None:
    """The row has no stamp, but the queue has the newer event: the older one ends as superseded."""
    await product(engine, "1", 2, status="completed", completed_at="sql:now()")
    await old_worker_writes(engine, "1", "v2")
    older = await product(engine, "1", 1, age=60)
    await worker(engine).step()
    now = await row(engine, older)
    assert (now["status"], now["processing_result"]["outcome"]) == ("completed", "superseded")


async def test_what_an_old_worker_applied_keeps_its_record_when_its_event_is_removed(
    engine: AsyncEngine,
) -> None:
    """Nobody has locked that event: a purge of completed ones between the look and the write takes nothing away."""
    newer = await product(engine, "1", 2, status="completed", completed_at="sql:now()")
    await old_worker_writes(engine, "1", "v2")
    await product(engine, "1", 1, age=60)

    async def purge_first(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        if newer in [each.id for each in events]:
            async with engine.begin() as other:
                await other.execute(text("DELETE FROM tds_sync_queue WHERE id = :id"), {"id": newer})
        return await apply_events(tx, events)

    assert await worker(engine, apply=purge_first).step() == 1
    async with engine.connect() as tx:
        (name,) = (await tx.execute(text("SELECT zoho_data ->> 'name' FROM products"))).scalars()
    assert name == "v2"
    assert await stored(engine, "1") == ("v2", AT + timedelta(minutes=2))


async def test_a_redriven_dead_letter_is_not_newer_than_what_came_after_it(engine: AsyncEngine) -> None:
    """An old worker applied the next event of the record; the first one died of the bug that is now mended."""
    dead = await product(engine, "1", 1, age=60, status="dead_letter", error_code="xd2s")
    await product(engine, "1", 2, status="completed", completed_at="sql:now()")
    await old_worker_writes(engine, "1", "v2")
    async with engine.begin() as tx:
        await redrive(tx, [dead])
    await worker(engine).step()
    assert (await row(engine, dead))["processing_result"]["outcome"] == "superseded"
    assert (await stored(engine, "1"))[0] == "v2"


@pytest.mark.parametrize("status", ["pending", "processing"])
async def test_while_an_old_worker_is_at_a_newer_event_ours_waits(engine: AsyncEngine, status: str) -> None:
    """It may have written already and not said so, with its lease taken before its status: nothing of ours stays."""
    older = await product(engine, "1", 1, age=60)
    other = await product(engine, "2", 1, age=60)
    newer = await product(
        engine,
        "1",
        2,
        status=status,
        locked_by="worker-1",
        lock_expires_at="sql:now() + interval '1 minute'",
    )
    await old_worker_writes(engine, "1", "v2")
    await worker(engine).step()
    now = await row(engine, older)
    assert (now["status"], now["error_code"]) == ("retry", "RecordInUse")
    assert "worker-1 is applying a newer event of Product 1" in now["error_message"]
    assert await stored(engine, "1") == ("v2", None)
    assert (await row(engine, other))["status"] == "completed"
    await change(
        engine, newer, status="completed", completed_at="sql:now()", locked_by=None, lock_expires_at=None
    )
    await change(engine, older, next_retry_at="sql:now()")
    await worker(engine).step()
    assert (await row(engine, older))["processing_result"]["outcome"] == "superseded"
    assert await stored(engine, "1") == ("v2", AT + timedelta(minutes=2))


async def test_a_worker_of_ours_at_a_newer_event_is_not_waited_for(engine: AsyncEngine) -> None:
    """The older event arrived after the newer one was claimed: the stamps decide, and no event waits for minutes."""
    assert re.search(OWNER_PATTERN, new_owner("erp-1"))
    newer = await product(engine, "1", 2)
    async with engine.begin() as tx:
        await claim(tx, owner=new_owner("other"), limit=1, lease_seconds=60)
    older = await product(engine, "1", 1, age=60)
    await worker(engine).step()
    assert (await row(engine, older))["status"] == "completed"
    assert (await row(engine, newer))["status"] == "processing"


async def test_our_own_newer_events_are_no_strangers(engine: AsyncEngine) -> None:
    """An event completed by `runbook worker` is in the row with its stamp: it is not applied again."""
    await product(engine, "1", 2)
    await worker(engine).step()
    seen: list[int] = []
    older = await product(engine, "1", 1, age=60)
    one = worker(engine)
    inner = one._stepper.settler.apply

    async def counted(tx: Any, events: Any) -> Any:
        seen.append(len(events))
        return await inner(tx, events)

    object.__setattr__(one._stepper.settler, "apply", counted)
    await one.step()
    assert seen == [1]
    assert (await row(engine, older))["processing_result"]["outcome"] == "superseded"


@contextlib.asynccontextmanager
async def an_old_worker(url: str) -> AsyncIterator[list[int]]:
    """One that takes the oldest pending event that is not leased, whatever the record, and commits step by step."""
    connection = await asyncpg.connect(url)
    done = [0]

    async def work() -> None:
        while True:
            waiting = await connection.fetch(
                "SELECT id FROM tds_sync_queue WHERE status = 'pending' ORDER BY created_at LIMIT 20"
            )
            for (id_,) in waiting:
                taken = await connection.fetchrow(
                    "UPDATE tds_sync_queue SET locked_by = 'worker-1', lock_expires_at = now() + interval '5 min'"
                    " WHERE id = $1 AND (locked_by IS NULL OR lock_expires_at < now())"
                    " RETURNING source_entity_id, validated_payload",
                    id_,
                )
                if taken is None:
                    continue
                await connection.execute("UPDATE tds_sync_queue SET status = 'processing' WHERE id = $1", id_)
                name = json.loads(taken["validated_payload"])["item"]["name"]
                await connection.execute(APPLY_AS_THE_OLD_ONE_DOES, taken["source_entity_id"], name)
                await connection.execute(
                    "UPDATE tds_sync_queue SET status = 'completed', completed_at = now(), locked_by = NULL,"
                    " lock_expires_at = NULL WHERE id = $1",
                    id_,
                )
                done[0] += 1
            await asyncio.sleep(0.002)

    task = asyncio.create_task(work())
    try:
        yield done
    finally:
        task.cancel()
        await asyncio.wait({task})
        await connection.close()
        if not task.cancelled():
            task.result()


async def test_with_both_at_work_the_newest_stands(engine: AsyncEngine, database_url: str) -> None:
    """Some hundred records, each changed several times while an old worker and ours take what comes first."""
    records, versions = 60, 6
    one = worker(engine, batch_size=7, backoff_seconds=0.2, poll_seconds=0.02)
    stop = asyncio.Event()
    luck = random.Random(4)
    async with an_old_worker(database_url) as theirs:
        running = asyncio.create_task(one.run(stop))
        for version in range(1, versions + 1):
            keys = list(range(records))
            luck.shuffle(keys)
            for key in keys:
                await product(engine, str(key), version)
        async with asyncio.timeout(40):
            while True:
                async with engine.connect() as tx:
                    open_ = text(
                        "SELECT count(*) FROM tds_sync_queue WHERE status NOT IN ('completed', 'dead_letter')"
                    )
                    if not (await tx.execute(open_)).scalar_one():
                        break
                await asyncio.sleep(0.05)
        stop.set()
        await running
    assert theirs[0] > 20
    assert one.tally["applied"] > 20
    async with engine.connect() as tx:
        found = await tx.execute(text("SELECT name, count(*) FROM products GROUP BY name"))
        assert [tuple(each) for each in found] == [(f"v{versions}", records)]
