"""The other queues at the same work, each with the one-row upsert of fifteen columns as its handler.

That handler is lighter than the worker's own: it maps in SQL, keeps no raw record and asks for no parents. Whoever
is slower than the worker here would be slower still with the whole of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
from _sql import NARROW, one_row
from sqlalchemy import DateTime, String, Text, cast, select, text, update
from sqlalchemy.dialects.postgresql import ENUM, JSONB
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Task = dict[str, Any]
Begin = Callable[[], Awaitable[None]]
Count = Callable[[int], None]

UPSERT = one_row(NARROW)
STATUS = ENUM(name="tds_event_status", create_type=False)


class Base(DeclarativeBase):
    """The ERP's models."""


class SyncQueue(Base):
    """As much of the queue's row as the ERP's worker touches."""

    __tablename__ = "tds_sync_queue"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    inbox_event_id: Mapped[UUID]
    source_entity_id: Mapped[str]
    validated_payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(String)
    locked_by: Mapped[str | None] = mapped_column(Text)
    lock_expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    completed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


async def erp(task: Task, begin: Begin, count: Count) -> None:
    """An imitation of the ERP's own worker: one event after the other, five commits each, rows as ORM objects.

    Lock, mark as processing, upsert, mark as completed, close the inbox row. The real one does not get that far:
    it loses its row at the first failure.
    """
    engine = create_async_engine(make_url(task["url"]).set(drivername="postgresql+asyncpg"))
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    handler = text(UPSERT.replace("$1", ":key").replace("$2", ":payload"))
    inbox = text("UPDATE tds_inbox_events SET processed_at = now() WHERE id = :id")

    async def change(session: AsyncSession, event: UUID, **values: Any) -> None:
        status = values.pop("status", None)
        if status is not None:
            values["status"] = cast(status, STATUS)
        await session.execute(update(SyncQueue).where(SyncQueue.id == event).values(**values))
        await session.commit()

    async with engine.connect():
        pass
    await begin()
    done = 0
    while done < task["jobs"]:
        async with sessions() as session:
            waiting = await session.scalars(
                select(SyncQueue.id)
                .where(SyncQueue.status == cast("pending", STATUS))
                .order_by(SyncQueue.created_at)
                .limit(100)
            )
        for event in waiting:
            async with sessions() as session:
                row = (await session.execute(select(SyncQueue).where(SyncQueue.id == event))).scalar_one()
                now = datetime.now(UTC)
                await change(session, event, locked_by="erp", lock_expires_at=now + timedelta(minutes=5))
                await change(session, event, status="processing", started_at=now)
                await session.execute(
                    handler, {"key": row.source_entity_id, "payload": json.dumps(row.validated_payload)}
                )
                await session.commit()
                await change(session, event, status="completed", completed_at=datetime.now(UTC))
                await session.execute(inbox, {"id": row.inbox_event_id})
                await session.commit()
            done += 1
            if done % 20 == 0:
                count(done)
            if done == task["jobs"]:
                break
    count(done)
    await asyncio.to_thread(sys.stdin.readline)
    await engine.dispose()


async def _records(task: Task) -> list[tuple[str, str]]:
    """The first so many records of the backlog, to be put into another queue."""
    connection = await asyncpg.connect(task["url"])
    rows = await connection.fetch(
        "SELECT source_entity_id, validated_payload::text FROM tds_sync_queue ORDER BY created_at LIMIT $1",
        task["jobs"],
    )
    await connection.close()
    return [(row[0], row[1]) for row in rows]


async def procrastinate(task: Task, begin: Begin, count: Count) -> None:
    """Procrastinate with ten jobs at a time."""
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=task["url"]))
    pool = await asyncpg.create_pool(task["url"], min_size=5, max_size=10)
    done = 0

    @app.task(name="one")
    async def one(key: str, payload: str) -> None:
        nonlocal done
        await pool.execute(UPSERT, key, payload)
        done += 1
        if done % 20 == 0 or done == task["jobs"]:
            count(done)

    records = await _records(task)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await one.batch_defer_async(*({"key": key, "payload": payload} for key, payload in records))
        await begin()
        running = asyncio.create_task(app.run_worker_async(concurrency=10, install_signal_handlers=False))
        await asyncio.to_thread(sys.stdin.readline)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await pool.close()


async def pgqueuer(task: Task, begin: Begin, count: Count) -> None:
    """PgQueuer with batches of two hundred."""
    from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries

    connection = await asyncpg.connect(task["url"])
    pool = await asyncpg.create_pool(task["url"], min_size=5, max_size=10)
    driver = AsyncpgDriver(connection)
    queries = Queries(driver)
    await queries.install()
    records = await _records(task)
    await queries.enqueue(
        ["one"] * len(records), [json.dumps(record).encode() for record in records], [0] * len(records)
    )
    queuer = PgQueuer(driver)
    done = 0

    @queuer.entrypoint("one")
    async def one(job: Job) -> None:
        nonlocal done
        assert job.payload is not None
        key, payload = json.loads(job.payload)
        await pool.execute(UPSERT, key, payload)
        done += 1
        if done % 20 == 0 or done == task["jobs"]:
            count(done)

    await begin()
    running = asyncio.create_task(queuer.run(batch_size=200))
    await asyncio.to_thread(sys.stdin.readline)
    queuer.shutdown.set()
    await asyncio.wait({running}, timeout=5)
    await pool.close()
    await connection.close()
