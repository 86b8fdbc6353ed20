"""A connection that breaks down costs no event an attempt, and does not end the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.engine import worker_engine
from handlers.queue.event import Event, Result, Status
from handlers.worker.batch import Apply
from tests.integration.queue.events import event, row
from tests.integration.worker.steps import effects, make_effect, statuses, until, worker, write


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def effect(engine: AsyncEngine) -> None:
    """What the handler writes to."""
    await make_effect(engine)


@pytest_asyncio.fixture(loop_scope="session")
async def own(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The engine of a worker, as a deployed one makes it."""
    made = worker_engine(database_url)
    yield made
    await made.dispose()


@asynccontextmanager
async def running(own: AsyncEngine, apply: Apply = write, batch_size: int = 20) -> AsyncIterator[None]:
    """A worker at work, which must still run at the end."""
    stop = asyncio.Event()
    task = asyncio.create_task(worker(own, apply, poll_seconds=0.1, batch_size=batch_size).run(stop))
    try:
        yield
        assert not task.done()
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)


async def all_completed(engine: AsyncEngine, ids: Sequence[UUID]) -> bool:
    return set(await statuses(engine, ids)) == {Status.COMPLETED}


async def waits(engine: AsyncEngine, id_: UUID) -> bool:
    return await statuses(engine, [id_]) == [Status.RETRY]


async def completed_unharmed(engine: AsyncEngine, ids: Sequence[UUID], seconds: float = 20) -> None:
    """Every event is completed soon, applied once, and in its first attempt."""
    await until(lambda: all_completed(engine, ids), seconds)
    assert sorted(await effects(engine)) == sorted(ids)
    assert {(await row(engine, id_))["attempt_count"] for id_ in ids} == {1}


def failing_with(code: str, times: int) -> Apply:
    """A handler that breaks its connection *times* times: the server raises *code*."""
    left = times

    async def apply(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        nonlocal left
        results = await write(tx, events)
        if left:
            left -= 1
            await tx.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$"))
        return results

    return apply


@pytest.mark.parametrize("code", ["25P02", "26000", "42P05", "08P01", "0A000", "57014"])
async def test_a_fault_of_the_connection_burns_nothing(
    engine: AsyncEngine, own: AsyncEngine, code: str
) -> None:
    """Two batches break down, which no isolation would cure; all events are completed in their first attempt."""
    ids = [await event(engine, str(n)) for n in range(2)]
    async with running(own, failing_with(code, 2), batch_size=1):
        await completed_unharmed(engine, ids)


@pytest.mark.parametrize("lost", ["DEALLOCATE ALL", "SELECT 1 / 0"])
async def test_a_session_that_was_spoilt_is_replaced(
    engine: AsyncEngine, own: AsyncEngine, lost: str
) -> None:
    """Prepared statements that are gone, and a transaction in which nothing works any more, as they really come."""
    ids = [await event(engine, str(n)) for n in range(6)]
    spoilt = False

    async def apply(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        nonlocal spoilt
        if not spoilt:
            spoilt = True
            with suppress(DBAPIError):
                await tx.execute(text(lost))
        return await write(tx, events)

    async with running(own, apply):
        await completed_unharmed(engine, ids)


@pytest.mark.parametrize(
    "migration",
    [
        "ALTER TABLE tds_sync_queue ALTER attempt_count TYPE bigint",
        "ALTER TABLE tds_sync_queue ALTER source_entity_id TYPE varchar(300)",
        "ALTER TABLE tds_sync_queue ADD COLUMN x integer",
    ],
)
async def test_a_migration_beside_a_worker_is_survived(
    engine: AsyncEngine, own: AsyncEngine, migration: str
) -> None:
    """The plans of the claim are outdated: the worker makes new ones."""
    ids = [await event(engine, str(n)) for n in range(3)]
    async with running(own):
        await until(lambda: all_completed(engine, ids))
        async with engine.begin() as tx:
            await tx.execute(text(migration))
        # The test's own connections have outdated plans as well.
        await engine.dispose()
        ids += [await event(engine, str(n)) for n in range(10, 13)]
        await completed_unharmed(engine, ids)


async def test_a_statement_timeout_shorter_than_a_batch_makes_batches_smaller(
    engine: AsyncEngine, own: AsyncEngine, database_url: str
) -> None:
    """Twenty events take a second and one statement may take a quarter of it: all are applied, unharmed."""
    async with engine.begin() as tx:
        name = make_url(database_url).database
        await tx.execute(text(f"ALTER DATABASE \"{name}\" SET statement_timeout = '250ms'"))
    ids = [await event(engine, str(n)) for n in range(20)]

    async def slow(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        await tx.execute(text("SELECT pg_sleep(0.05 * :number)"), {"number": len(events)})
        return await write(tx, events)

    async with running(own, slow):
        await completed_unharmed(engine, ids)


async def test_an_event_that_breaks_every_connection_is_found_and_waits(
    engine: AsyncEngine, own: AsyncEngine
) -> None:
    """It is the only one that costs an attempt, after it was alone three times; no other waits for it."""
    ids = [await event(engine, str(n), age=60 - n) for n in range(20)]
    alone = 0

    async def apply(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        nonlocal alone
        if any(each.id == ids[7] for each in events):
            alone += len(events) == 1
            await tx.execute(text("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '57014'; END $$"))
        return await write(tx, events)

    async with running(own, apply):
        others = [id_ for id_ in ids if id_ != ids[7]]
        await completed_unharmed(engine, others, 30)
        await until(lambda: waits(engine, ids[7]))
    culprit = await row(engine, ids[7])
    assert (culprit["status"], culprit["attempt_count"], culprit["error_code"]) == ("retry", 1, "57014")
    assert culprit["processing_result"]["class"] == "connection"
    assert alone == 3


async def test_a_session_that_others_share_is_never_an_events_fault(
    engine: AsyncEngine, own: AsyncEngine
) -> None:
    """However often it comes: a missing prepared statement is not the doing of a handler."""
    ids = [await event(engine, "1")]
    async with running(own, failing_with("26000", 4)):
        await completed_unharmed(engine, ids, 30)
