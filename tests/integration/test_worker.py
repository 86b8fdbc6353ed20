"""The worker: what it settles, what it isolates, and what it never does twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from queue_events import bytes_of, change, dead_letter, event, row
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

import handlers.entities
import handlers.webhooks
from handlers.errors import Refused
from handlers.webhooks import queue
from handlers.webhooks.event import EntityType, Event, Outcome, Result, Status
from handlers.webhooks.settle import Apply
from handlers.webhooks.worker import Worker, new_owner

FAR = 3600.0


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def effect(engine: AsyncEngine) -> None:
    """The table that the handlers of these tests write: a row for each application, small numbers only."""
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "CREATE TABLE effect (event uuid NOT NULL, pid integer NOT NULL DEFAULT 0,"
                " key text NOT NULL DEFAULT '', n smallint NOT NULL DEFAULT 0 CHECK (n < 100),"
                " at bigint GENERATED ALWAYS AS IDENTITY)"
            )
        )


async def write(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
    """A set-based handler: one statement for the batch. Any key but a small number is refused there."""
    await tx.execute(
        text(
            "INSERT INTO effect (event, key, n) SELECT e, k, CAST(k AS smallint)"
            " FROM unnest(CAST(:events AS uuid[]), CAST(:keys AS text[])) AS r (e, k)"
        ),
        {"events": [each.id for each in events], "keys": [each.key for each in events]},
    )
    return {each.id: Result(outcome=Outcome.APPLIED, target=each.key) for each in events}


def worker(engine: AsyncEngine, apply: Apply = write, **settings: Any) -> Worker:
    return Worker(engine, owner=new_owner("test"), revision="r1", apply=apply, **settings)


async def effects(engine: AsyncEngine) -> list[UUID]:
    """The events that were applied, as often and in the order as they were."""
    async with engine.connect() as tx:
        return list((await tx.execute(text("SELECT event FROM effect ORDER BY at"))).scalars())


async def statuses(engine: AsyncEngine, ids: Sequence[UUID]) -> list[Status]:
    async with engine.connect() as tx:
        found = {state.id: state.status for state in await queue.states(tx, ids)}
    return [found[id_] for id_ in ids]


async def until(true: Callable[[], Any], seconds: float = 10) -> float:
    """Wait until the condition holds; says how long it took."""
    began = time.monotonic()
    while not await true():
        assert time.monotonic() - began < seconds, "it did not come true in time"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


class TestBatch:
    async def test_rows_and_completions_come_together(self, engine: AsyncEngine) -> None:
        """A batch of good events is applied once and completed by this worker's revision."""
        ids = [await event(engine, str(n)) for n in range(5)]
        assert await worker(engine).step() == 5
        assert sorted(await effects(engine)) == sorted(ids)
        async with engine.connect() as tx:
            for state in await queue.states(tx, ids):
                assert state.status is Status.COMPLETED
                assert (state.processing_result or {})["revision"] == "r1"

    async def test_an_empty_queue_is_nothing_to_do(self, engine: AsyncEngine) -> None:
        """No event is no error and no effect."""
        assert await worker(engine).step() == 0

    async def test_a_poisoned_event_takes_nobody_with_it(self, engine: AsyncEngine) -> None:
        """Events that the database refuses end as dead letters of their own kind; all the others complete."""
        keys = [str(n) for n in range(60)]
        keys[7], keys[31], keys[59] = "poison", "99999", "500"
        ids = [await event(engine, key) for key in keys]
        await worker(engine).step()
        bad = {ids[7]: "22P02", ids[31]: "22003", ids[59]: "23514"}
        assert sorted(await effects(engine)) == sorted(set(ids) - set(bad))
        async with engine.connect() as tx:
            for state in await queue.states(tx, ids):
                told = state.processing_result or {}
                if state.id not in bad:
                    assert state.status is Status.COMPLETED
                    continue
                assert (state.status, state.completed_at) == (Status.DEAD_LETTER, None)
                assert (told["class"], told["sqlstate"]) == ("permanent", bad[state.id])
                assert told["fingerprint"]
        check = await row(engine, ids[59])
        assert check["processing_result"]["field"] == "effect_n_check"

    async def test_a_batch_of_nothing_but_poison_ends(self, engine: AsyncEngine) -> None:
        """Every event refused: every one a dead letter, and no effect."""
        ids = [await event(engine, f"x{n}") for n in range(12)]
        await worker(engine).step()
        assert set(await statuses(engine, ids)) == {Status.DEAD_LETTER}
        assert await effects(engine) == []

    async def test_isolation_costs_few_statements(self, engine: AsyncEngine) -> None:
        """One bad event among 400 is found with twice the square root, not with 400 savepoints."""
        calls = 0

        async def counted(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            nonlocal calls
            calls += 1
            return await write(tx, events)

        async with engine.begin() as tx:
            for n in range(400):
                await queue.insert_event(
                    tx, entity=EntityType.PRODUCT, key="bad" if n == 250 else str(n % 100), payload_text="{}"
                )
        await worker(engine, counted).step()
        assert len(await effects(engine)) == 399
        assert calls < 40

    async def test_a_handler_that_raises_is_a_dead_letter_with_its_error(self, engine: AsyncEngine) -> None:
        """An error of Python is recorded by its type; the secret words of others are not in it."""

        async def broken(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            await write(tx, events)
            if any(each.key == "3" for each in events):
                raise KeyError("rate")
            return {each.id: Result(outcome=Outcome.APPLIED) for each in events}

        ids = [await event(engine, str(n)) for n in range(5)]
        await worker(engine, broken).step()
        bad = await row(engine, ids[3])
        assert (bad["status"], bad["error_code"]) == ("dead_letter", "KeyError")
        assert sorted(await effects(engine)) == sorted(set(ids) - {ids[3]})

    async def test_an_event_without_a_result_is_not_a_success(self, engine: AsyncEngine) -> None:
        """An event that its handler forgets is not completed: its rows are undone, it dies with a reason."""

        async def forgetful(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            results = await write(tx, events)
            return {each.id: results[each.id] for each in events if each.key != "1"}

        ids = [await event(engine, str(n)) for n in range(3)]
        await worker(engine, forgetful).step()
        assert await statuses(engine, ids) == [Status.COMPLETED, Status.DEAD_LETTER, Status.COMPLETED]
        assert ids[1] not in await effects(engine)
        assert "gave no result" in (await row(engine, ids[1]))["error_message"]

    async def test_a_refusal_is_buried_at_once_and_a_missing_parent_waits(self, engine: AsyncEngine) -> None:
        """What the handler says about an event decides: refused, waiting, superseded, applied."""
        said = {
            "1": Result(outcome=Outcome.REFUSED, reason="rate: 'abc' is not a number", field="rate"),
            "2": Result(outcome=Outcome.WAITING, reason="customer 77 is not there yet", field="customer_id"),
            "3": Result(outcome=Outcome.SUPERSEDED, reason="a newer version is there"),
            "4": Result(outcome=Outcome.APPLIED, target="4"),
        }

        async def told(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            return {each.id: said[each.key] for each in events}

        ids = [await event(engine, key) for key in said]
        await worker(engine, told).step()
        assert await statuses(engine, ids) == [
            Status.DEAD_LETTER,
            Status.RETRY,
            Status.COMPLETED,
            Status.COMPLETED,
        ]
        refused, waits, overtaken, _ = [await row(engine, id_) for id_ in ids]
        assert (refused["error_code"], refused["error_message"]) == ("refused", "rate: 'abc' is not a number")
        assert refused["processing_result"]["field"] == "rate"
        assert (waits["error_code"], waits["attempt_count"]) == ("missing_parent", 1)
        assert overtaken["processing_result"]["outcome"] == "superseded"

    async def test_a_missing_parent_ends_as_a_dead_letter_that_names_it(self, engine: AsyncEngine) -> None:
        """The wait is bounded: after the allowed attempts the event dies with the parent in its reason."""

        async def orphaned(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            return {
                each.id: Result(outcome=Outcome.WAITING, reason="customer 77 is not there") for each in events
            }

        id_ = await event(engine, "1")
        for _ in range(3):
            await change(engine, id_, next_retry_at="sql:now()")
            await worker(engine, orphaned).step()
        now = await row(engine, id_)
        assert (now["status"], now["error_message"]) == ("dead_letter", "customer 77 is not there")

    async def test_a_parent_wakes_its_children(self, engine: AsyncEngine) -> None:
        """As soon as the parent is applied, the child that waits for it is due, minutes before its time."""

        async def family(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            there = {
                *(await tx.execute(text("SELECT key FROM effect"))).scalars(),
                *(each.key for each in events),
            }
            ready = [each for each in events if each.key != "2" or "1" in there]
            waiting = Result(outcome=Outcome.WAITING, reason="customer 1 is not there yet")
            return {each.id: waiting for each in events} | dict(await write(tx, ready))

        child = await event(engine, "2", entity=EntityType.INVOICE, age=10)
        one = worker(engine, family)
        await one.step()
        assert await statuses(engine, [child]) == [Status.RETRY]
        parent = await event(engine, "1", entity=EntityType.CUSTOMER)
        await one.step()
        await one.step()
        assert await statuses(engine, [child, parent]) == [Status.COMPLETED, Status.COMPLETED]

    async def test_no_orm_object_crosses_a_transaction(self, engine: AsyncEngine) -> None:
        """The source system's bug: a failed write, a rollback, and then a look at the row it had loaded.

        What is claimed here is a plain value, readable after the rollback and where no greenlet is near.
        """
        await event(engine, "1")
        async with engine.connect() as tx:
            (claimed,) = await queue.claim(tx, owner="a", limit=1, lease_seconds=60)
            with pytest.raises(DBAPIError):
                await tx.execute(text("UPDATE tds_sync_queue SET processing_started_at = now()"))
            await tx.rollback()
        seen = await asyncio.to_thread(lambda: (claimed.key, claimed.attempt, claimed.payload))
        assert seen[:2] == ("1", 1)

    def test_the_core_does_not_know_the_orm(self) -> None:
        """Neither the queue nor the entities import SQLAlchemy's ORM or its sessions."""
        for package in (handlers.webhooks, handlers.entities):
            for path in Path(package.__path__[0]).glob("*.py"):
                source = path.read_text(encoding="utf-8")
                assert "sqlalchemy.orm" not in source
                assert "AsyncSession" not in source

    async def test_a_newer_event_does_not_pass_one_that_is_tried_again(self, engine: AsyncEngine) -> None:
        """When the older of two in a batch fails for now, the newer goes back and comes after it."""
        failing = True

        async def flaky(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            if failing and any(each.id == older for each in events):
                raise TimeoutError
            return await write(tx, events)

        older, newer = await event(engine, "1", age=10), await event(engine, "1")
        other = await event(engine, "2")
        one = worker(engine, flaky)
        await one.step()
        assert await statuses(engine, [older, newer, other]) == [
            Status.RETRY,
            Status.PENDING,
            Status.COMPLETED,
        ]
        assert (await row(engine, newer))["attempt_count"] == 0
        failing = False
        await change(engine, older, next_retry_at="sql:now()")
        await one.step()
        assert await effects(engine) == [other, older, newer]

    async def test_a_newer_event_passes_one_that_is_dead(self, engine: AsyncEngine) -> None:
        """When the older one can never be applied, the newer is, in the same batch."""

        async def picky(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            if any(each.id == older for each in events):
                raise ValueError("never")
            return await write(tx, events)

        older, newer = await event(engine, "1", age=10), await event(engine, "1")
        await worker(engine, picky).step()
        assert await statuses(engine, [older, newer]) == [Status.DEAD_LETTER, Status.COMPLETED]

    async def test_a_handler_that_hides_an_error_completes_nothing(self, engine: AsyncEngine) -> None:
        """A swallowed database error leaves the transaction broken: a dead letter, no silent success."""

        async def hides(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            with suppress(DBAPIError):
                await tx.execute(text("UPDATE effect SET no_such_column = 1"))
            return {each.id: Result(outcome=Outcome.APPLIED) for each in events}

        id_ = await event(engine, "1")
        await worker(engine, hides).step()
        assert (await row(engine, id_))["status"] == "dead_letter"

    async def test_a_handler_cannot_commit_behind_the_workers_back(self, engine: AsyncEngine) -> None:
        """A handler that commits by itself fails, and its event is no success."""

        async def commits(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            results = await write(tx, events)
            await tx.commit()
            return results

        id_ = await event(engine, "1")
        await worker(engine, commits).step()
        assert (await row(engine, id_))["status"] == "dead_letter"

    async def test_a_commit_that_is_refused_settles_nothing_silently(self, engine: AsyncEngine) -> None:
        """A constraint that strikes at the commit names no event: all carry the error, none is lost."""
        async with engine.begin() as tx:
            await tx.execute(
                text("ALTER TABLE effect ADD CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED")
            )
        ids = [await event(engine, "5"), await event(engine, "05")]
        await worker(engine).step()
        assert await effects(engine) == []
        for id_ in ids:
            assert (await row(engine, id_))["error_code"] == "23505"


class TestFence:
    async def test_a_lost_lease_undoes_the_rows(self, engine: AsyncEngine) -> None:
        """A worker that was too slow writes nothing, and the new owner's event is untouched."""
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
                await queue.insert_event(tx, entity=EntityType.PRODUCT, key=str(n % 7), payload_text="{}")
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
                await queue.redrive(tx, [id_])

            async def done(id_: UUID = id_) -> bool:
                return await statuses(engine, [id_]) == [Status.COMPLETED]

            assert await until(done) < 2
        stop.set()
        await asyncio.wait_for(running, 5)

    async def test_without_a_call_the_slow_look_finds_the_work(self, engine: AsyncEngine) -> None:
        """The ERP's receiver calls nobody: its events are found by looking."""
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
        """A handler that never ends is cancelled; its events are pending again, with no attempt burnt."""
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
        """A login that cannot work is not waited for: the error names the setting to mend."""
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
        """A handler that hangs costs the limit, not more; its event is pending again and burnt no attempt."""

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
