"""The worker: what it never does twice, how it waits, wakes and ends, and the same inline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from handlers.errors import Refused
from handlers.queue.event import EntityType, Event, Result, Status
from handlers.queue.insert import insert_event
from handlers.queue.redrive import redrive
from tests.integration.queue.events import bytes_of, change, dead_letter, event, row, without_notes
from tests.integration.worker.steps import FAR, effects, make_effect, statuses, until, worker, write


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def effect(engine: AsyncEngine) -> None:
    """What the handler writes to."""
    await make_effect(engine)


class TestFence:
    async def test_a_lost_lease_undoes_the_rows(self, engine: AsyncEngine) -> None:
        """A worker that was too slow writes nothing, and the new owner's event is untouched."""
        await without_notes(engine)
        id_ = await event(engine, "1")

        async def too_slow(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            await change(engine, id_, locked_by="somebody else")
            return await write(tx, events)

        one = worker(engine, too_slow)
        await one.step()
        assert await effects(engine) == []
        now = await row(engine, id_)
        assert (now["status"], now["locked_by"], now["attempt_count"]) == ("processing", "somebody else", 1)
        assert one.tally == {"lost": 1}

    async def test_one_lost_lease_does_not_undo_the_others(self, engine: AsyncEngine) -> None:
        """The events of a batch that are still ours complete; only the lost one's rows are undone."""
        await without_notes(engine)
        ids = [await event(engine, str(n)) for n in range(6)]

        async def partly(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            await change(engine, ids[2], status="dead_letter")
            return await write(tx, events)

        await worker(engine, partly).step()
        assert sorted(await effects(engine)) == sorted(set(ids) - {ids[2]})
        assert (await statuses(engine, ids)).count(Status.COMPLETED) == 5

    async def test_two_workers_apply_each_event_once_and_in_order(self, engine: AsyncEngine) -> None:
        """Many events of few records, small batches, three workers: each once, oldest first."""
        async with engine.begin() as tx:
            ids = [
                await insert_event(tx, entity=EntityType.PRODUCT, key=str(n % 7), payload_text="{}")
                for n in range(210)
            ]
            await tx.execute(
                text(
                    "UPDATE tds_sync_queue q SET created_at = now() + r.n * interval '1 ms'"
                    " FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS r (id, n) WHERE q.id = r.id"
                ),
                {"ids": ids},
            )

        async def go() -> None:
            one = worker(engine, batch_size=5)
            while Status.PENDING in await statuses(engine, ids):
                await one.step()

        await asyncio.wait_for(asyncio.gather(go(), go(), go()), 60)
        applied = await effects(engine)
        assert sorted(applied) == sorted(ids)
        place = {id_: n for n, id_ in enumerate(ids)}
        async with engine.connect() as tx:
            found = await tx.execute(
                text("SELECT key, array_agg(event ORDER BY at) AS events FROM effect GROUP BY 1")
            )
            for each in found:
                order = [place[id_] for id_ in each.events]
                assert order == sorted(order)


class TestRun:
    async def test_a_redrive_is_heard_long_before_the_next_look(self, engine: AsyncEngine) -> None:
        """A worker that looks every ten seconds completes a redriven event in a fraction of one."""
        ids = [await dead_letter(engine, str(n)) for n in range(4)]
        stop = asyncio.Event()
        one = worker(engine, poll_seconds=10)
        running = asyncio.create_task(one.run(stop))

        async def listening() -> bool:
            async with engine.connect() as tx:
                found = await tx.execute(
                    text(
                        "SELECT 1 FROM pg_stat_activity"
                        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                    )
                )
                return found.first() is not None

        await until(listening)
        # One after the other: the worker is idle when the second and later ones come.
        for id_ in ids:
            async with engine.begin() as tx:
                await redrive(tx, [id_])

            async def done(id_: UUID = id_) -> bool:
                return await statuses(engine, [id_]) == [Status.COMPLETED]

            assert await until(done) < 2
        stop.set()
        await asyncio.wait_for(running, 5)

    async def test_without_a_call_the_slow_look_finds_the_work(self, engine: AsyncEngine) -> None:
        """The ERP's receiver sends no NOTIFY: its events are found by polling."""
        id_ = await event(engine, "1", status="failed")
        stop = asyncio.Event()
        running = asyncio.create_task(worker(engine, poll_seconds=0.1).run(stop))
        await change(engine, id_, status="pending")

        async def done() -> bool:
            return await statuses(engine, [id_]) == [Status.COMPLETED]

        await until(done)
        stop.set()
        await asyncio.wait_for(running, 5)

    async def test_a_stop_during_a_hanging_batch_gives_it_back(self, engine: AsyncEngine) -> None:
        """A handler that never ends is cancelled; its events are pending again, and no attempt is counted."""
        ids = [await event(engine, str(n)) for n in range(3)]
        before = await bytes_of(engine, ids)
        begun = asyncio.Event()

        async def hangs(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            await write(tx, events)
            begun.set()
            await tx.execute(text("SELECT pg_sleep(600)"))
            raise AssertionError

        stop = asyncio.Event()
        running = asyncio.create_task(worker(engine, hangs, grace_seconds=0.2).run(stop))
        await asyncio.wait_for(begun.wait(), 5)
        stop.set()
        await asyncio.wait_for(running, 5)
        assert await bytes_of(engine, ids) == before
        assert await effects(engine) == []

    async def test_the_heart_beats_with_the_revision_and_stops_in_the_end(self, engine: AsyncEngine) -> None:
        """While it works, the worker's row says revision and counts; afterwards, that it has stopped."""
        async with engine.begin() as tx:
            await tx.execute(text("CREATE SCHEMA IF NOT EXISTS runbook"))
            await tx.execute(
                text(
                    "CREATE TABLE IF NOT EXISTS runbook.worker (owner text PRIMARY KEY, host text NOT NULL,"
                    " pid integer NOT NULL, revision text NOT NULL, started_at timestamptz DEFAULT now(),"
                    " beat_at timestamptz DEFAULT now(), applied bigint DEFAULT 0, failed bigint DEFAULT 0,"
                    " stopped_at timestamptz)"
                )
            )
        await event(engine, "1")
        await event(engine, "bad")
        stop = asyncio.Event()
        one = worker(engine, poll_seconds=0.05, beat_seconds=0.05)
        running = asyncio.create_task(one.run(stop))

        async def beaten() -> bool:
            async with engine.connect() as tx:
                found = await tx.execute(
                    text("SELECT revision, applied, failed, stopped_at FROM runbook.worker")
                )
                return list(found) == [("r1", 1, 1, None)]

        await until(beaten)
        stop.set()
        await asyncio.wait_for(running, 5)
        async with engine.connect() as tx:
            assert (await tx.execute(text("SELECT stopped_at FROM runbook.worker"))).scalar_one() is not None

    async def test_without_our_ledger_the_worker_works_and_says_so_once(
        self, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A database that was never migrated is no reason to leave the queue alone."""
        async with engine.begin() as tx:
            await tx.execute(text("DROP TABLE IF EXISTS runbook.worker"))
        id_ = await event(engine, "1")
        stop = asyncio.Event()
        running = asyncio.create_task(worker(engine, poll_seconds=0.02, beat_seconds=0.02).run(stop))

        async def done() -> bool:
            return await statuses(engine, [id_]) == [Status.COMPLETED]

        await until(done)
        await asyncio.sleep(0.2)
        stop.set()
        await asyncio.wait_for(running, 5)
        assert sum("runbook.worker" in record.message for record in caplog.records) == 1

    async def test_an_error_of_the_queue_itself_is_not_swallowed(self, engine: AsyncEngine) -> None:
        """A queue table without the columns we need ends the worker with the error, not an idle loop."""
        async with engine.begin() as tx:
            await tx.execute(
                text("ALTER TABLE tds_sync_queue DROP COLUMN target_entity_id, DROP COLUMN locked_by")
            )
        with pytest.raises(Exception, match="locked_by"):
            await asyncio.wait_for(worker(engine).run(asyncio.Event()), 5)

    async def test_a_wrong_password_ends_the_worker_with_what_to_do(self, engine: AsyncEngine) -> None:
        """A login that cannot work is not retried: the error names the setting to fix."""
        stranger = create_async_engine(engine.url.set(password="wrong"))
        with pytest.raises(Refused, match=r"database\.password"):
            await asyncio.wait_for(worker(stranger).run(asyncio.Event()), 10)
        await stranger.dispose()


class TestInline:
    async def test_exactly_the_given_events_are_settled(self, engine: AsyncEngine) -> None:
        """Other pending events are left alone, byte for byte."""
        other = await event(engine, "1", age=10)
        before = await bytes_of(engine, [other])
        ids = [await event(engine, "2"), await event(engine, "bad")]
        states = await worker(engine).run_until_settled(ids, 10)
        assert [state.status for state in states] == [Status.COMPLETED, Status.DEAD_LETTER]
        assert await bytes_of(engine, [other]) == before

    async def test_a_limit_ends_the_wait_and_leaves_no_lease(self, engine: AsyncEngine) -> None:
        """A handler that hangs is cancelled at the limit; its event is pending again, and no attempt is counted."""

        async def hangs(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            await tx.execute(text("SELECT pg_sleep(600)"))
            raise AssertionError

        id_ = await event(engine, "1")
        before = await bytes_of(engine, [id_])
        began = time.monotonic()
        await worker(engine, hangs).run_until_settled([id_], 0.5)
        assert time.monotonic() - began < 5
        assert await bytes_of(engine, [id_]) == before

    async def test_an_event_that_waits_longer_than_the_limit_is_reported_as_it_is(
        self, engine: AsyncEngine
    ) -> None:
        """Not settled is not success: the state says retry."""
        id_ = await event(engine, "1", status="retry", next_retry_at="sql:now() + interval '1 hour'")
        (state,) = await worker(engine, poll_seconds=0.05).run_until_settled([id_], 0.3)
        assert state.status is Status.RETRY

    async def test_an_unknown_id_ends_at_once(self, engine: AsyncEngine) -> None:
        """An event that is not in the queue is missing in the answer and waits for nothing."""
        assert await worker(engine).run_until_settled([UUID(int=1)], FAR) == []
