"""Dead letters sent back and put back to the last column, and looking at the queue without changing it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.queue import limits, look, settle
from handlers.queue.event import EntityType, Status
from handlers.queue.insert import insert_event
from handlers.queue.redrive import CHANNEL, BeforeRedrive, redrive, restore
from tests.integration.queue.events import bytes_of, change, claim, complete, dead_letter, event, failure, row


class TestRedrive:
    async def test_exactly_the_named_dead_letters_move(self, engine: AsyncEngine) -> None:
        """Neither another dead letter nor an event in another status nor an unknown id is touched."""
        mine = await dead_letter(engine, "1")
        others = [await dead_letter(engine, "2"), *[await event(engine, s, status=s) for s in Status]]
        before = await bytes_of(engine, others)
        named = [mine, *[id_ for id_ in others[1:] if id_ != others[-1]], uuid4()]
        async with engine.begin() as tx:
            formers = await redrive(tx, named)
        assert [former.id for former in formers] == [str(mine)]
        assert await bytes_of(engine, others) == before

    async def test_a_redriven_event_starts_clean(self, engine: AsyncEngine) -> None:
        """Nothing of its former life confuses a report: attempts, error, lock, times and result are wiped."""
        times = ("lock_expires_at", "next_retry_at", "started_at", "completed_at")
        id_ = await dead_letter(
            engine, "1", locked_by="x", processing_result="sql:'{}'", **dict.fromkeys(times, "sql:now()")
        )
        async with engine.begin() as tx:
            await redrive(tx, [id_])
        now = await row(engine, id_)
        wiped = ("error_message", "error_code", "locked_by", "processing_result", *times)
        assert (now["status"], now["attempt_count"]) == ("pending", 0)
        assert {name: now[name] for name in wiped} == dict.fromkeys(wiped)

    async def test_there_and_back_leaves_every_byte(self, engine: AsyncEngine) -> None:
        """Redriven and restored, by way of JSON as the ledger keeps it, a row is what it was."""
        ids = [
            await dead_letter(engine, "1"),
            await dead_letter(
                engine,
                "2",
                attempt_count=2,
                error_message="größer \\ \"than\" 'this'\n",
                next_retry_at="sql:now() + interval '3.000001 s'",
                locked_by="worker-1",
                lock_expires_at="sql:now()",
                started_at="sql:'infinity'",
                completed_at="sql:'2025-11-13 01:02:03.000004+03'",
                target_entity_id="",
                processing_result='sql:\'{"a": [1, 2.50, null], "ä": "x"}\'',
            ),
            await dead_letter(engine, "3", error_message="sql:NULL", error_code="sql:NULL", attempt_count=0),
        ]
        before = await bytes_of(engine, ids)
        async with engine.begin() as tx:
            kept = json.dumps([asdict(former) for former in await redrive(tx, ids)])
        assert await bytes_of(engine, ids) != before
        async with engine.begin() as tx:
            formers = [BeforeRedrive(**each) for each in json.loads(kept)]
            assert sorted(await restore(tx, formers)) == sorted(ids)
        assert await bytes_of(engine, ids) == before

    async def test_restore_takes_back_what_waits_in_retry_or_lost_its_worker(
        self, engine: AsyncEngine
    ) -> None:
        """Unsettled means pending, in retry, or held by a lease that has run out."""
        ids = [await dead_letter(engine, str(n)) for n in range(3)]
        before = await bytes_of(engine, ids)
        async with engine.begin() as tx:
            formers = await redrive(tx, ids)
        await claim(engine, "a", ids=ids[1:])
        async with engine.begin() as tx:
            await settle.retry_later(tx, owner="a", revision="r1", failures=[failure(ids[1])])
        await change(engine, ids[2], lock_expires_at="sql:now()")
        async with engine.begin() as tx:
            assert len(await restore(tx, formers)) == 3
        assert await bytes_of(engine, ids) == before

    async def test_restore_leaves_alone_what_is_settled_or_in_work(self, engine: AsyncEngine) -> None:
        """A completed event, a new dead letter, and a leased event are not changed."""
        ids = [await dead_letter(engine, str(n)) for n in range(3)]
        async with engine.begin() as tx:
            formers = await redrive(tx, ids)
        await claim(engine, "a")
        await complete(engine, "a", [ids[0]])
        async with engine.begin() as tx:
            await settle.bury(tx, owner="a", revision="r1", failures=[failure(ids[1])])
        before = await bytes_of(engine, ids)
        async with engine.begin() as tx:
            assert await restore(tx, formers) == []
        assert await bytes_of(engine, ids) == before

    async def test_a_lease_binds_nobody_once_the_workers_are_known_to_be_gone(
        self, engine: AsyncEngine
    ) -> None:
        """Even a running lease is taken back then; a worker that was there after all can complete nothing."""
        id_ = await dead_letter(engine, "1")
        before = await bytes_of(engine, [id_])
        async with engine.begin() as tx:
            formers = await redrive(tx, [id_])
        await claim(engine, "a")
        async with engine.begin() as tx:
            assert await restore(tx, formers, leased_before=datetime.now(UTC) + timedelta(seconds=1)) == [id_]
        assert await complete(engine, "a", [id_]) == set()
        assert await bytes_of(engine, [id_]) == before

    async def test_two_redrives_at_once_move_an_event_once(self, engine: AsyncEngine) -> None:
        """Only one of two managers gets the former values; the other gets none."""
        ids = [await dead_letter(engine, str(n)) for n in range(20)]

        async def go() -> int:
            async with engine.begin() as tx:
                return len(await redrive(tx, ids))

        assert sorted(await asyncio.gather(go(), go())) == [0, 20]

    async def test_a_redrive_that_is_rolled_back_wakes_nobody(
        self, engine: AsyncEngine, database_url: str
    ) -> None:
        """The call to the workers is part of the transaction."""
        heard: list[str] = []
        listener = await asyncpg.connect(database_url)
        await listener.add_listener(CHANNEL, lambda *_: heard.append("x"))
        id_ = await dead_letter(engine, "1")
        heard.clear()
        async with engine.connect() as tx:
            await redrive(tx, [id_])
            await tx.rollback()
        await listener.fetchval("SELECT 1")
        assert heard == []
        async with engine.begin() as tx:
            await redrive(tx, [id_])
        await listener.fetchval("SELECT 1")
        assert heard == ["x"]
        await listener.close()


class TestReading:
    async def test_every_status_is_counted_also_at_none(self, engine: AsyncEngine) -> None:
        """An empty queue is seven zeros, not an empty answer."""
        async with engine.connect() as tx:
            assert await look.counts(tx) == dict.fromkeys(Status, 0)
        await event(engine, "1")
        async with engine.connect() as tx:
            assert (await look.counts(tx))[Status.PENDING] == 1

    async def test_a_record_counts_once_and_a_late_success_hides_no_failure(
        self, engine: AsyncEngine
    ) -> None:
        """Ten failures of one record are one failure, and a late success does not hide it."""
        for n in range(3):
            await event(engine, "1", age=50 - n, status="dead_letter", error_message=f"no item {n}")
        await event(engine, "1", age=1, status="completed")
        await event(engine, "2", age=50, status="completed")
        await event(engine, "2", age=1, status="completed")
        await event(engine, "3", age=50, status="failed")
        async with engine.connect() as tx:
            (told,) = await look.outcomes_since(
                tx, since=datetime.now(UTC) - timedelta(minutes=2), late_seconds=60
            )
        assert (told.entity, told.completed, told.failed, told.open, told.late) == (
            EntityType.PRODUCT,
            1,
            2,
            0,
            0,
        )
        assert told.error_samples == ("no item 0",)

    async def test_every_kind_of_error_is_told_also_of_events_in_retry(self, engine: AsyncEngine) -> None:
        """Sixty other errors, a success of the same record before, and no failure yet: none of it hides a kind."""
        for n in range(60):
            await event(engine, f"{n}", age=50, status="dead_letter", error_message=f"{chr(65 + n)} broke")
        await event(
            engine, "0", age=40, status="retry", error_message="greenlet_spawn 'x' 17", error_code="xd2s"
        )
        await event(engine, "done", age=40, status="completed", error_message="over")
        async with engine.connect() as tx:
            (told,) = await look.outcomes_since(
                tx, since=datetime.now(UTC) - timedelta(minutes=2), late_seconds=60
            )
        assert {"xd2s", "greenlet_spawn 0 0"} <= set(told.error_kinds)
        assert len(told.error_kinds) == 62

    async def test_an_old_success_does_not_hide_how_a_record_fails_now(self, engine: AsyncEngine) -> None:
        """Known records succeed once, and then every webhook dies: the release kills them. A recovery is a success."""
        for n in range(5):
            await event(engine, f"{n}", age=50, status="completed")
            await event(engine, f"{n}", age=20, status="dead_letter", error_message="now")
            await event(engine, f"{n}", age=1)
        for age, status in ((50, "completed"), (30, "dead_letter"), (10, "completed")):
            await event(engine, "well again", age=age, status=status)
        async with engine.connect() as tx:
            (told,) = await look.outcomes_since(
                tx, since=datetime.now(UTC) - timedelta(minutes=2), late_seconds=60
            )
        assert (told.completed, told.failed, told.open) == (1, 5, 0)
        assert told.error_samples == ("now",)

    async def test_an_error_that_the_type_had_before_is_told_apart(self, engine: AsyncEngine) -> None:
        """By its text without values, for its own type only, from the day before and from letters sent back."""
        now = datetime.now(UTC)
        since = now - timedelta(seconds=100)
        dead = {"status": "dead_letter", "started_at": now - timedelta(seconds=300)}
        await event(engine, "a", age=300, error_message="no vendor 'x' 1", **dead)
        await event(engine, "b", age=300, error_message="after the switch", **dead | {"started_at": now})
        await event(engine, "c", age=100_000, error_message="long ago", **dead)
        bill = {"entity": EntityType.BILL, "age": 10, "status": "dead_letter", "started_at": now}
        product = bill | {"entity": EntityType.PRODUCT}
        for number, error in enumerate(
            ("no vendor 'y' 22", "after the switch", "long ago", "of a letter 7", None)
        ):
            await event(engine, f"{number}", **product, error_message=error)
        await event(engine, "z", **bill, error_message="no vendor 'x' 1")
        async with engine.connect() as tx:
            known = await look.known_errors(
                tx, before=since, former=[(EntityType.PRODUCT, "of a letter 3"), (EntityType.BILL, "")]
            )
            counts = await look.outcomes_since(tx, since=since, late_seconds=60, known=known)
        assert set(known) == {("product", "no vendor 0 0"), ("product", "of a letter 0")}
        assert {count.entity: (count.failed, count.known) for count in counts} == {
            EntityType.PRODUCT: (5, 2),
            EntityType.BILL: (1, 0),
        }

    async def test_unfinished_events_are_late_at_their_age(self, engine: AsyncEngine) -> None:
        """Pending, in work or in retry: young ones are open, old ones are late."""
        for n, status in enumerate(("pending", "processing", "retry")):
            await event(engine, f"young{n}", status=status, age=10)
            await event(engine, f"old{n}", status=status, age=70)
        async with engine.connect() as tx:
            (told,) = await look.outcomes_since(
                tx, since=datetime.now(UTC) - timedelta(minutes=2), late_seconds=60
            )
        assert (told.completed, told.failed, told.open, told.late) == (0, 0, 3, 3)

    @pytest.mark.parametrize("limited", [None, EntityType.PRODUCT])
    async def test_what_a_limit_holds_is_not_late(
        self, engine: AsyncEngine, limited: EntityType | None
    ) -> None:
        """Neither while it is held nor right after; what no limit held, and what a worker has, is late as before."""
        for status in ("pending", "retry", "processing"):
            await event(engine, status, status=status, age=70)
        await event(engine, "7", entity=EntityType.BILL, age=70)

        async def told() -> dict[EntityType | None, tuple[int, int, int, str]]:
            async with engine.connect() as tx:
                counts = await look.outcomes_since(
                    tx, since=datetime.now(UTC) - timedelta(minutes=2), late_seconds=60
                )
            return {count.entity: (count.open, count.held, count.late, count.held_by) for count in counts}

        await limits.limit(engine, limited, per_ten_seconds=0, seconds=60, by="ops-b", reason="test")
        bill = (0, 0, 1, "") if limited else (1, 1, 0, "ops-b")
        assert await told() == {EntityType.PRODUCT: (2, 2, 1, "ops-b"), EntityType.BILL: bill}
        assert [each.set_by for each in await limits.lift(engine, limited)] == ["ops-b"]
        assert await limits.limits(engine) == []
        bill = (0, 0, 1, "") if limited else (1, 0, 0, "")
        assert await told() == {EntityType.PRODUCT: (2, 0, 1, ""), EntityType.BILL: bill}
        async with engine.begin() as tx:
            await tx.execute(
                text(
                    "UPDATE runbook.intake SET set_at = now() - interval '5 min', until = now() - interval '1 min'"
                )
            )
        assert (await told())[EntityType.PRODUCT] == (0, 0, 3, "")

    async def test_what_came_before_and_was_first_taken_since_counts(self, engine: AsyncEngine) -> None:
        """The backlog of the deploy is the release's; what a worker took before is not, also when it fails again."""
        since = datetime.now(UTC) - timedelta(seconds=100)
        before, after = since - timedelta(seconds=9), since + timedelta(seconds=9)
        admitted = "sql:jsonb_build_object('worker', 'w', 'admitted', CAST('{}' AS timestamptz))"
        dead = {"age": 200, "status": "dead_letter", "started_at": after}
        await event(engine, "taken since", **dead)
        await event(engine, "first since", **dead, processing_result=admitted.format(after.isoformat()))
        await event(engine, "first before", **dead, processing_result=admitted.format(before.isoformat()))
        await event(engine, "junk", **dead, processing_result='sql:\'{"admitted": "soon"}\'::jsonb')
        await event(engine, "taken before", **dead | {"started_at": before})
        await event(engine, "a clock ahead", **dead | {"started_at": after + timedelta(hours=4)})
        await event(engine, "nobody took it", age=200)
        await event(engine, "too long ago", **dead | {"age": 4000})
        async with engine.connect() as tx:
            (told,) = await look.outcomes_since(
                tx, since=since, arrived_since=since - timedelta(hours=1), late_seconds=60
            )
            (alone,) = await look.outcomes_since(tx, since=since - timedelta(seconds=150), late_seconds=60)
        assert (told.failed, told.late, told.open) == (3, 1, 0)
        assert (alone.failed, alone.late) == (6, 1)

    async def test_what_waits_for_a_parent_is_late_after_three_times_as_long(
        self, engine: AsyncEngine
    ) -> None:
        """Its parent may be on its way. Another retry is late as before."""
        for age in (70, 170, 190):
            await event(engine, f"{age}", age=age, status="retry", error_code="missing_parent")
        await event(engine, "other", age=70, status="retry", error_code="57014")
        async with engine.connect() as tx:
            (told,) = await look.outcomes_since(
                tx, since=datetime.now(UTC) - timedelta(minutes=5), late_seconds=60
            )
        assert (told.open, told.late) == (2, 2)

    async def test_replays_and_older_events_do_not_count(self, engine: AsyncEngine) -> None:
        """Live traffic is what arrived in the window, without what the drain sent back."""
        await event(engine, "1", age=600, status="completed")
        replayed = await dead_letter(engine, "2")
        async with engine.connect() as tx:
            told = await look.outcomes_since(
                tx, since=datetime.now(UTC) - timedelta(minutes=2), excluding=[replayed], late_seconds=60
            )
        assert told == []

    async def test_an_unknown_key_in_processing_result_is_no_error(self, engine: AsyncEngine) -> None:
        """What another program left in processing_result, an object or not, is read without complaint."""
        id_ = await event(engine, "1", processing_result="sql:'[1]'")
        async with engine.connect() as tx:
            (state,) = await look.states(tx, [id_, uuid4()])
        assert state.processing_result is None

    async def test_a_payload_that_is_not_json_is_refused_whole(self, engine: AsyncEngine) -> None:
        """Neither the inbox nor the queue keeps half an event."""
        async with engine.connect() as tx:
            with pytest.raises(DBAPIError):
                await insert_event(tx, entity=EntityType.PRODUCT, key="1", payload_text="{")
        async with engine.connect() as tx:
            assert (await tx.execute(text("SELECT count(*) FROM tds_inbox_events"))).scalar_one() == 0
