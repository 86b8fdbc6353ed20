"""Batches claimed by row locks: what others see of them, and what a killed worker leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.entities.apply import apply_events
from handlers.erp import doctor
from handlers.queue import in_hand, look, redrive, settle
from handlers.queue.claim import claim, lock
from handlers.queue.event import EntityType, Event, Result, Status
from handlers.queue.insert import insert_event
from handlers.worker.worker import Worker, new_owner
from tests.integration.queue.events import change, event, row, without_notes
from tests.integration.worker.steps import statuses, until, worker


async def notes(engine: AsyncEngine) -> int:
    """How many batches are noted."""
    async with engine.connect() as tx:
        return int((await tx.execute(text("SELECT count(*) FROM runbook.in_hand"))).scalar_one())


class Stopped:
    """A worker that stands still with its first batch written and not committed, until it is told to go on."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self.worker = worker(engine, self._apply)
        self.task: asyncio.Task[int] | None = None

    async def _apply(self, tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        results = await apply_events(tx, events)
        if not self.reached.is_set():
            self.reached.set()
            await self.go_on.wait()
        return results

    async def __aenter__(self) -> Stopped:
        self.task = asyncio.create_task(self.worker.step())
        await asyncio.wait_for(self.reached.wait(), 10)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.go_on.set()
        await asyncio.wait_for(self.task, 20)


async def killed(engine: AsyncEngine, limit: int = 1000) -> list[UUID]:
    """A worker claims by row locks, notes its batch and is gone: its transaction ends, the note stays."""
    batch = in_hand.new_batch()
    connection = await engine.connect()
    events = await lock(connection, batch=batch, limit=limit)
    await in_hand.note(engine, batch=batch, owner="killed-1-0123abcd", events=events)
    await connection.close()
    return [each.id for each in events]


async def test_an_event_is_changed_once(engine: AsyncEngine) -> None:
    """The claim leaves the queue as it is; the completion writes what a lease would have written before."""
    ids = [await event(engine, str(n)) for n in range(3)]
    async with engine.begin() as tx:
        await tx.execute(text("CREATE TABLE changes (id uuid, status text)"))
        await tx.execute(
            text(
                "CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " INSERT INTO changes VALUES (new.id, new.status); RETURN NULL; END $$"
            )
        )
        await tx.execute(
            text(
                "CREATE TRIGGER note_change AFTER UPDATE ON tds_sync_queue"
                " FOR EACH ROW EXECUTE FUNCTION note_change()"
            )
        )
    one = worker(engine, apply_events)
    assert await one.step() == 3
    async with engine.connect() as tx:
        changes = (await tx.execute(text("SELECT id, status FROM changes"))).all()
    assert sorted(changes) == sorted((id_, "completed") for id_ in ids)
    now = await row(engine, ids[0])
    assert (now["attempt_count"], now["locked_by"]) == (1, one.owner)
    assert now["started_at"] <= now["completed_at"]
    assert now["lock_expires_at"] - now["started_at"] == timedelta(seconds=300)
    assert await notes(engine) == 0


async def test_what_is_in_hand_is_processing_to_everybody(engine: AsyncEngine) -> None:
    """Counts and states say so although the queue still says pending; nobody else takes it, nor what is newer."""
    held = await event(engine, "1", age=10)
    async with Stopped(engine):
        newer = await event(engine, "1")
        other = await event(engine, "2")
        async with engine.connect() as tx:
            counts = await look.counts(tx)
            (state,) = await look.states(tx, [held])
        assert (counts[Status.PENDING], counts[Status.PROCESSING]) == (2, 1)
        assert (state.status, (await row(engine, held))["status"]) == (Status.PROCESSING, "pending")
        async with engine.begin() as tx:
            taken = await claim(tx, owner="leases", limit=10, lease_seconds=60)
        assert [each.id for each in taken] == [other]
        assert await worker(engine, apply_events).step() == 0
    assert await statuses(engine, [held, newer]) == [Status.COMPLETED, Status.PENDING]


async def test_a_record_in_hand_fills_no_batch_of_another(engine: AsyncEngine) -> None:
    """Its newer events are not chosen and then dropped: what comes behind them is taken."""
    await event(engine, "1", age=900)
    async with Stopped(engine):
        for n in range(20):
            await event(engine, "1", age=500 - n)
        other = await event(engine, "2")
        async with engine.begin() as tx:
            taken = await lock(tx, batch=in_hand.new_batch(), limit=5)
        assert [each.id for each in taken] == [other]


async def large(engine: AsyncEngine, key: str, size: int = 400_000) -> UUID:
    """A dead letter of 400 KB: seven of them fill a batch."""
    id_ = await event(engine, key, age=900, status="dead_letter", error_message="x")
    payload = f"sql:validated_payload || jsonb_build_object('description', repeat('x', {size}))"
    await change(engine, id_, validated_payload=payload)
    return id_


async def test_what_does_not_fit_into_a_batch_is_left_to_others(engine: AsyncEngine) -> None:
    """Only what a worker has in hand is locked: another takes a batch of the rest, and a drain takes back the rest."""
    ids = [await large(engine, str(n)) for n in range(20)]
    async with engine.begin() as tx:
        before = await redrive.redrive(tx, ids)
    async with Stopped(engine), Stopped(engine):
        async with engine.begin() as tx:
            held = (await look.counts(tx))[Status.PROCESSING]
            restored = await redrive.restore(tx, before)
        assert held > 7
        assert len(restored) == 20 - held
    assert sorted(await statuses(engine, ids)) == [Status.COMPLETED] * held + [Status.DEAD_LETTER] * (
        20 - held
    )


async def test_large_events_are_worked_off_in_batches_that_fit(engine: AsyncEngine) -> None:
    """No event is left over, and none is applied twice, whatever the first try has locked."""
    ids = [await large(engine, str(n)) for n in range(20)]
    async with engine.begin() as tx:
        await redrive.redrive(tx, ids)
    one = worker(engine, apply_events)
    taken = [await one.step() for _ in range(6)]
    assert sum(taken) == 20
    assert taken[-1] == 0
    assert (one.tally["applied"], await notes(engine)) == (20, 0)
    assert {(await row(engine, id_))["attempt_count"] for id_ in ids} == {1}


async def test_one_large_event_makes_the_batches_after_it_small_for_a_short_time_only(
    engine: AsyncEngine,
) -> None:
    """It is locked alone. Each batch after it may be twice as large as the last."""
    async with engine.begin() as tx:
        await redrive.redrive(tx, [await large(engine, "0", 4_000_000)])
    for n in range(1, 31):
        await event(engine, str(n))
    one = worker(engine, apply_events)
    assert [await one.step() for _ in range(6)] == [1, 2, 4, 8, 16, 0]


async def test_a_drain_that_goes_back_leaves_alone_what_is_in_hand(engine: AsyncEngine) -> None:
    """A restore does not wait for the worker, and does not undo what it commits."""
    id_ = await event(engine, "1", status="dead_letter", error_message="x")
    async with engine.begin() as tx:
        before = await redrive.redrive(tx, [id_])
    async with Stopped(engine), engine.begin() as tx:
        await tx.execute(text("SET LOCAL lock_timeout = '2s'"))
        assert await redrive.restore(tx, before) == []
    assert (await row(engine, id_))["status"] == "completed"


async def test_a_killed_workers_batch_comes_back_in_pieces(engine: AsyncEngine) -> None:
    """At once, no attempt counted, and only once: of two workers that look at the same time one takes it."""
    ids = [await event(engine, str(n), age=100 - n) for n in range(20)]
    assert await killed(engine) == ids
    assert await worker(engine, apply_events).step() == 0, "until it is taken back nobody takes it"
    async with engine.begin() as first, engine.begin() as second:
        taken = await asyncio.gather(settle.expire_leases(first), settle.expire_leases(second))
    assert sorted(map(len, taken)) == [0, 20]
    assert await notes(engine) == 0
    now = await row(engine, ids[0])
    assert (now["status"], now["attempt_count"], now["error_code"]) == ("retry", 0, "lease_expired")
    assert now["processing_result"]["lost"]["together"] == 20
    one = worker(engine, apply_events)
    assert [await one.step() for _ in range(11)] == [2] * 10 + [0]
    assert set(await statuses(engine, ids)) == {Status.COMPLETED}


async def test_a_server_that_was_restarted_leaves_no_suspects(engine: AsyncEngine) -> None:
    """A clean stop keeps the notes, unlike a crash: it has ended the batches itself, and their events are free."""
    ids = [await event(engine, str(n), age=100 - n) for n in range(3)]
    await killed(engine)
    await change_note(engine, "since = pg_postmaster_start_time() - interval '1 second'")
    async with engine.begin() as tx:
        assert await settle.expire_leases(tx) == {}
    assert await notes(engine) == 0
    now = await row(engine, ids[0])
    assert (now["status"], now["locked_by"], now["processing_result"]) == ("pending", None, None)
    assert await worker(engine, apply_events).step() == 3


async def test_a_running_worker_takes_back_what_a_killed_one_had_at_its_next_heartbeat(
    engine: AsyncEngine,
) -> None:
    """Not only when it starts, and not after the 300 seconds of a lease."""
    stop = asyncio.Event()
    one = worker(engine, apply_events, beat_seconds=0.2, poll_seconds=0.1)
    running = asyncio.create_task(one.run(stop))
    try:
        first = await event(engine, "1")
        await until(lambda: all_are(engine, [first], Status.COMPLETED))
        # The event and its note come at once: the running worker cannot take it in between.
        async with engine.begin() as tx:
            payload = '{"item_id": "2", "name": "two"}'
            held = await insert_event(tx, entity=EntityType.PRODUCT, key="2", payload_text=payload)
            await tx.execute(
                text(
                    "INSERT INTO runbook.in_hand (batch, owner, ids, bytes) VALUES (:batch, 'dead', :ids, 1)"
                ),
                {"batch": in_hand.new_batch(), "ids": [held]},
            )
        await until(lambda: all_are(engine, [held], Status.COMPLETED))
    finally:
        stop.set()
        await running
    assert await notes(engine) == 0


async def test_the_note_of_a_worker_that_lives_is_left_alone(engine: AsyncEngine) -> None:
    """However long it takes: its transaction holds the lock of its batch."""
    id_ = await event(engine, "1")
    async with Stopped(engine):
        await change_note(engine, "since = now() - interval '1 day'")
        async with engine.begin() as tx:
            assert await settle.expire_leases(tx) == {}
        assert await notes(engine) == 1
        assert [p for p in await doctor.examine(engine) if p.name == "stuck"] == []
    assert (await row(engine, id_))["processing_result"]["outcome"] == "applied"


async def test_the_doctor_names_what_no_worker_takes_back(engine: AsyncEngine) -> None:
    """A killed worker, and no other: its events would wait for ever, and the queue shows them as pending."""
    await event(engine, "1")
    await killed(engine)
    await change_note(engine, "since = now() - interval '2 minutes'")
    (problem,) = [p for p in await doctor.examine(engine) if p.name == "stuck"]
    assert "1 events are left from a worker that was killed" in problem.sentence


async def all_are(engine: AsyncEngine, ids: list[UUID], status: Status) -> bool:
    return set(await statuses(engine, ids)) == {status}


async def change_note(engine: AsyncEngine, assignment: str) -> None:
    async with engine.begin() as tx:
        await tx.execute(text(f"UPDATE runbook.in_hand SET {assignment}"))


async def test_an_event_that_was_settled_meanwhile_is_not_taken_back(engine: AsyncEngine) -> None:
    """Between the death of its worker and the next look a person may have redriven, restored or buried it."""
    ids = [await event(engine, str(n), age=100 - n) for n in range(3)]
    await killed(engine)
    await change(engine, ids[0], status="completed")
    await change(
        engine,
        ids[1],
        locked_by="worker-1",
        lock_expires_at="sql:now() + interval '1 hour'",
        status="pending",
    )
    async with engine.begin() as tx:
        assert await settle.expire_leases(tx) == {ids[2]: Status.RETRY}
    assert (await row(engine, ids[1]))["locked_by"] == "worker-1"


async def test_a_connection_that_is_lost_in_the_batch_costs_nothing(
    engine: AsyncEngine, database_url: str
) -> None:
    """The worker lives: its events are pending again, and not suspects."""
    ids = [await event(engine, str(n)) for n in range(4)]
    broken = False

    async def cut(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        nonlocal broken
        if not broken:
            broken = True
            pid = (await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            async with engine.begin() as other:
                await other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        return await apply_events(tx, events)

    one = Worker(engine, owner=new_owner("test"), revision="r1", apply=cut, poll_seconds=0.05)
    stop = asyncio.Event()
    running = asyncio.create_task(one.run(stop))
    try:
        await until(lambda: all_are(engine, ids, Status.COMPLETED), 20)
    finally:
        stop.set()
        await running
    for id_ in ids:
        now = await row(engine, id_)
        assert (now["attempt_count"], "lost" in now["processing_result"]) == (1, False)
    assert await notes(engine) == 0


@pytest.mark.parametrize(
    "columns",
    [
        {
            "status": "processing",
            "locked_by": "worker-1",
            "lock_expires_at": "sql:now() + interval '5 minutes'",
        },
        {"status": "processing"},
        {
            "status": "completed",
            "locked_by": "worker-2",
            "lock_expires_at": "sql:now() + interval '4 minutes'",
        },
    ],
    ids=["at work", "without a lease", "a moment ago"],
)
async def test_beside_the_erps_own_workers_every_batch_is_leased(
    engine: AsyncEngine, columns: dict[str, str]
) -> None:
    """They may be about to change an event that they read before: a committed lease keeps the time for that short."""
    await event(engine, "theirs", **columns)
    id_ = await event(engine, "ours")
    seen: list[str] = []

    async def look_at(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        seen.append((await row(engine, id_))["status"])
        return await apply_events(tx, events)

    one = worker(engine, look_at)
    await one._maintain()
    assert await one.step() == 1
    assert seen == ["processing"]


async def test_without_the_table_every_batch_is_leased(engine: AsyncEngine) -> None:
    """A database with an older ledger works as before."""
    await without_notes(engine)
    ids = [await event(engine, str(n)) for n in range(3)]
    assert await worker(engine, apply_events).step() == 3
    assert set(await statuses(engine, ids)) == {Status.COMPLETED}
    async with engine.begin() as tx:
        assert await settle.expire_leases(tx) == {}
        assert (await look.counts(tx))[Status.COMPLETED] == 3
