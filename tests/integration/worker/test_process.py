"""Workers as processes, and the database itself, killed and stopped in the middle of their work."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from handlers.queue import insert, look
from handlers.queue.event import EntityType, Event, Outcome, Result, Status
from handlers.worker.worker import Worker, new_owner
from rehearsal.postgres import Postgres
from tests.integration.queue.events import bytes_of, row

PROCESS = Path(__file__).with_name("process.py")
EFFECT = (
    "CREATE TABLE effect (event uuid NOT NULL, pid integer NOT NULL, at bigint GENERATED ALWAYS AS IDENTITY)"
)
WRITE = "INSERT INTO effect (event, pid) VALUES (:id, 0)"


@asynccontextmanager
async def process(
    url: str, *, seconds: float, batch: int, lease: float = 60
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process whose handler takes *seconds* for each event; killed at the end if it still lives."""
    words = [str(PROCESS), url, str(seconds), str(batch), str(lease)]
    child = await asyncio.create_subprocess_exec(
        sys.executable, *words, env={"PYTHONPATH": str(PROCESS.parents[3]), "TMPDIR": tempfile.gettempdir()}
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    """Wait until the condition holds."""
    began = time.monotonic()
    while not await true():
        assert time.monotonic() - began < seconds, "it did not come true in time"
        await asyncio.sleep(0.02)


async def fill(engine: AsyncEngine, number: int) -> list[UUID]:
    """*number* pending events of different records, and the table that the process writes."""
    async with engine.begin() as tx:
        await tx.execute(text(EFFECT))
        return [
            await insert.insert_event(tx, entity=EntityType.PRODUCT, key=str(n), payload_text="{}")
            for n in range(number)
        ]


async def applied(engine: AsyncEngine) -> list[UUID]:
    async with engine.connect() as tx:
        return list((await tx.execute(text("SELECT event FROM effect"))).scalars())


async def in_work(engine: AsyncEngine) -> int:
    async with engine.connect() as tx:
        return (await look.counts(tx))[Status.PROCESSING]


async def all_completed(engine: AsyncEngine, ids: Sequence[UUID]) -> bool:
    async with engine.connect() as tx:
        return {state.status for state in await look.states(tx, ids)} == {Status.COMPLETED}


class TestKill:
    async def test_a_killed_worker_loses_nothing_and_repeats_nothing(
        self, engine: AsyncEngine, database_url: str
    ) -> None:
        """SIGKILL in mid batch: no row of it stays. After the lease another worker does it, and no attempt is lost."""
        ids = await fill(engine, 20)
        async with process(database_url, seconds=0.3, batch=20, lease=2) as first:
            await until(lambda: _some_backend_sleeps(engine))
            first.kill()
            await first.wait()
        assert await applied(engine) == []
        assert await in_work(engine) == 20
        async with process(database_url, seconds=0, batch=20, lease=5):
            await until(lambda: all_completed(engine, ids))
        assert sorted(await applied(engine)) == sorted(ids)
        assert (await row(engine, ids[0]))["attempt_count"] == 1

    async def test_workers_killed_again_and_again_apply_each_event_once(
        self, engine: AsyncEngine, database_url: str
    ) -> None:
        """Two workers, killed in mid batch and restarted: in the end each event has one effect."""
        ids = await fill(engine, 200)
        chance = random.Random(7)

        async def life() -> None:
            for _ in range(3):
                async with process(database_url, seconds=0.01, batch=10, lease=1):
                    await until(lambda: _some_backend_sleeps(engine))
                    await asyncio.sleep(chance.uniform(0, 0.3))
            async with process(database_url, seconds=0, batch=10, lease=5):
                await until(lambda: all_completed(engine, ids))

        await asyncio.wait_for(asyncio.gather(life(), life()), 120)
        assert sorted(await applied(engine)) == sorted(ids)

    async def test_a_told_worker_finishes_its_batch(self, engine: AsyncEngine, database_url: str) -> None:
        """SIGTERM during a short batch: it is finished, nothing new is begun, the process ends well."""
        ids = await fill(engine, 12)
        async with process(database_url, seconds=0.05, batch=5) as child:
            await until(lambda: _some_backend_sleeps(engine))
            child.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(child.wait(), 10) == 0
        assert await in_work(engine) == 0
        done = await applied(engine)
        assert len(done) in (5, 10)
        async with engine.connect() as tx:
            counts = await look.counts(tx)
        assert (counts[Status.COMPLETED], counts[Status.PENDING]) == (len(done), len(ids) - len(done))

    async def test_a_told_worker_gives_back_what_takes_too_long(
        self, engine: AsyncEngine, database_url: str
    ) -> None:
        """SIGTERM during a long batch: it exits within ten seconds, events are unchanged, no attempt is counted."""
        ids = await fill(engine, 2)
        before = await bytes_of(engine, ids)
        async with process(database_url, seconds=60, batch=5) as child:
            await until(lambda: _some_backend_sleeps(engine))
            began = time.monotonic()
            child.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(child.wait(), 12) == 0
            assert time.monotonic() - began < 10
        assert await bytes_of(engine, ids) == before
        assert await applied(engine) == []


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Postgres]:
    """A server that this test may break."""
    server = Postgres.start(tmp_path / "postgres")
    yield server
    server.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def own_engine(own_server: Postgres) -> AsyncIterator[AsyncEngine]:
    """An engine on the ERP's tables in that server."""
    url = await own_server.create_database("erp")
    connection = await asyncpg.connect(url)
    await connection.execute(files("rehearsal").joinpath("erp.sql").read_text(encoding="utf-8"))
    await connection.close()
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), pool_pre_ping=True)
    yield engine
    await engine.dispose()


class TestDatabaseGone:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
    async def test_a_restart_in_mid_batch_burns_no_attempt(
        self, own_server: Postgres, own_engine: AsyncEngine, how: signal.Signals
    ) -> None:
        """Clean, immediate or murdered: the batch goes back, is done once, and counts one attempt."""
        ids = await fill(own_engine, 10)
        begun, gone = asyncio.Event(), asyncio.Event()

        async def write(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            for event in events:
                await tx.execute(text(WRITE), {"id": event.id})
            if not begun.is_set():
                begun.set()
                await gone.wait()
            return {event.id: Result(outcome=Outcome.APPLIED) for event in events}

        stop = asyncio.Event()
        worker = Worker(own_engine, owner=new_owner("test"), revision="r1", apply=write, poll_seconds=0.1)
        running = asyncio.create_task(worker.run(stop))
        await asyncio.wait_for(begun.wait(), 10)
        await asyncio.to_thread(own_server.stop, how)
        gone.set()
        await asyncio.sleep(0.3)
        assert not running.done()
        own_server.restart()
        await until(lambda: all_completed(own_engine, ids))
        stop.set()
        await asyncio.wait_for(running, 10)
        assert sorted(await applied(own_engine)) == sorted(ids)
        assert {(await row(own_engine, id_))["attempt_count"] for id_ in ids} == {1}

    async def test_a_worker_that_starts_before_its_database_waits_for_it(
        self, own_server: Postgres, own_engine: AsyncEngine
    ) -> None:
        """Without a database at the start, the worker retries, and stops on SIGTERM."""
        ids = await fill(own_engine, 3)
        own_server.stop()

        async def write(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            return {event.id: Result(outcome=Outcome.APPLIED) for event in events}

        stop = asyncio.Event()
        worker = Worker(own_engine, owner=new_owner("test"), revision="r1", apply=write, poll_seconds=0.1)
        running = asyncio.create_task(worker.run(stop))
        await asyncio.sleep(0.5)
        assert not running.done()
        own_server.restart()
        await until(lambda: all_completed(own_engine, ids))
        own_server.stop()
        stop.set()
        began = time.monotonic()
        await asyncio.wait_for(running, 10)
        assert time.monotonic() - began < 9

    async def test_a_cut_connection_is_no_failure_of_the_event(self, own_engine: AsyncEngine) -> None:
        """When only the worker's backend is ended, its events go back and are done once, in one attempt."""
        ids = await fill(own_engine, 5)
        cut = False

        async def write(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            nonlocal cut
            for event in events:
                await tx.execute(text(WRITE), {"id": event.id})
            if not cut:
                cut = True
                await tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            return {event.id: Result(outcome=Outcome.APPLIED) for event in events}

        stop = asyncio.Event()
        worker = Worker(own_engine, owner=new_owner("test"), revision="r1", apply=write, poll_seconds=0.1)
        running = asyncio.create_task(worker.run(stop))
        await until(lambda: all_completed(own_engine, ids))
        stop.set()
        await asyncio.wait_for(running, 10)
        assert sorted(await applied(own_engine)) == sorted(ids)
        assert {(await row(own_engine, id_))["attempt_count"] for id_ in ids} == {1}

    async def test_a_cut_while_a_bad_event_is_being_looked_for_blames_nobody(
        self, own_engine: AsyncEngine
    ) -> None:
        """The connection is lost behind a savepoint: no event is buried for it, and each is done once."""
        ids = await fill(own_engine, 5)
        cut = False

        async def write(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            nonlocal cut
            if len(events) > 1:
                raise ValueError("not together")
            if not cut:
                cut = True
                await tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            await tx.execute(text(WRITE), {"id": events[0].id})
            return {event.id: Result(outcome=Outcome.APPLIED) for event in events}

        stop = asyncio.Event()
        worker = Worker(own_engine, owner=new_owner("test"), revision="r1", apply=write, poll_seconds=0.1)
        running = asyncio.create_task(worker.run(stop))
        await until(lambda: all_completed(own_engine, ids))
        stop.set()
        await asyncio.wait_for(running, 10)
        assert sorted(await applied(own_engine)) == sorted(ids)
        assert {(await row(own_engine, id_))["attempt_count"] for id_ in ids} == {1}


async def _some_backend_sleeps(engine: AsyncEngine) -> bool:
    """Whether a worker's handler is at work in this database."""
    async with engine.connect() as tx:
        found = await tx.execute(
            text(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'tds-worker' AND wait_event = 'PgSleep'"
            )
        )
        return found.first() is not None
