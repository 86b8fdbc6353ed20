"""A batch: what the worker settles of it, what it isolates, and what one bad event costs the others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import handlers.entities
import handlers.queue
import handlers.worker
from handlers.errors import ConnectionFault
from handlers.queue import insert, look, settle
from handlers.queue.claim import claim
from handlers.queue.event import EntityType, Event, Outcome, Result, Status
from tests.integration.queue.events import change, event, row, wait_out
from tests.integration.worker.steps import effects, make_effect, statuses, worker, write


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def effect(engine: AsyncEngine) -> None:
    """What the handler writes to."""
    await make_effect(engine)


class TestBatch:
    async def test_rows_and_completions_come_together(self, engine: AsyncEngine) -> None:
        """A batch of good events is applied once and completed by this worker's revision."""
        ids = [await event(engine, str(n)) for n in range(5)]
        assert await worker(engine).step() == 5
        assert sorted(await effects(engine)) == sorted(ids)
        async with engine.connect() as tx:
            for state in await look.states(tx, ids):
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
            for state in await look.states(tx, ids):
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
                await insert.insert_event(
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
        assert (waits["error_code"], waits["attempt_count"]) == ("missing_parent", 0)
        assert overtaken["processing_result"]["outcome"] == "superseded"

    async def test_a_missing_parent_ends_as_a_dead_letter_that_names_it(self, engine: AsyncEngine) -> None:
        """The wait is bounded by time, not by tries: then the event dies with the parent in its reason."""

        async def orphaned(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            return {
                each.id: Result(outcome=Outcome.WAITING, reason="customer 77 is not there") for each in events
            }

        id_ = await event(engine, "1")
        for _ in range(5):
            await worker(engine, orphaned).step()
            assert await statuses(engine, [id_]) == [Status.RETRY]
            await change(engine, id_, next_retry_at="sql:now()")
        await wait_out(engine, id_)
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
            waiting = Result(outcome=Outcome.WAITING, reason="customer 1 is not there yet", parents=("1",))
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
            (claimed,) = await claim(tx, owner="a", limit=1, lease_seconds=60)
            with pytest.raises(DBAPIError):
                await tx.execute(text("UPDATE tds_sync_queue SET processing_started_at = now()"))
            await tx.rollback()
        seen = await asyncio.to_thread(lambda: (claimed.key, claimed.attempt, claimed.payload))
        assert seen[:2] == ("1", 1)

    def test_the_core_does_not_know_the_orm(self) -> None:
        """Neither the queue nor the entities import SQLAlchemy's ORM or its sessions."""
        for package in (handlers.queue, handlers.worker, handlers.entities):
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
        """A swallowed database error leaves the transaction broken: the event waits, no silent success."""

        async def hides(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            with suppress(DBAPIError):
                await tx.execute(text("UPDATE effect SET no_such_column = 1"))
            return {each.id: Result(outcome=Outcome.APPLIED) for each in events}

        id_ = await event(engine, "1")
        one = worker(engine, hides)
        # Once by row locks, and then leased.
        for _ in range(3):
            with pytest.raises(ConnectionFault):
                await one.step()
            async with engine.begin() as tx:
                await settle.release(tx, owner=one.owner)
        await one.step()
        told = await row(engine, id_)
        assert (told["status"], told["error_code"], told["attempt_count"]) == ("retry", "25P02", 1)

    async def test_an_event_that_breaks_every_connection_is_blamed_in_batches_of_one(
        self, engine: AsyncEngine
    ) -> None:
        """Such batches cannot become smaller: only that they are leased after the first fault finds the event."""

        async def breaks(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
            await tx.execute(text("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '25P02'; END $$"))
            raise AssertionError

        id_ = await event(engine, "1")
        one = worker(engine, breaks, batch_size=1)
        for _ in range(3):
            with pytest.raises(ConnectionFault):
                await one.step()
            async with engine.begin() as tx:
                await settle.release(tx, owner=one.owner)
        await one.step()
        assert (await row(engine, id_))["status"] == "retry"

    async def test_a_handler_cannot_commit_behind_the_workers_back(self, engine: AsyncEngine) -> None:
        """A handler that commits fails, and its event is not completed."""

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
