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

from handlers.queue import look, settle
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
