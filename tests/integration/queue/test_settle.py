"""Settling: each verb touches only what its owner holds, mostly on the way that goes wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.queue import look, settle
from handlers.queue.event import ErrorClass, Outcome, Result, Status
from handlers.queue.redrive import BeforeRedrive, redrive, restore
from handlers.worker.worker import new_owner
from tests.integration.queue.events import (
    APPLIED,
    FORMER,
    bytes_of,
    change,
    claim,
    complete,
    event,
    failure,
    row,
)


class TestSettle:
    async def test_complete_says_who_did_what(self, engine: AsyncEngine) -> None:
        """A completed event has its target, time, outcome with worker and revision, and no error."""
        id_ = await event(engine, "1", error_message="old", error_code="old", attempt_count=1)
        await claim(engine)
        async with engine.begin() as tx:
            overtaken = Result(outcome=Outcome.SUPERSEDED, reason="a newer version is there", target="7")
            assert await settle.complete(tx, owner="a", revision="r1", results={id_: overtaken}) == {id_}
        now = await row(engine, id_)
        assert (now["status"], now["target_entity_id"]) == ("completed", "7")
        assert (now["error_message"], now["error_code"]) == (None, None)
        assert now["completed_at"] >= now["started_at"]
        # The lease runs on: the ERP's own worker, with an old list in its hand, looks at nothing else.
        assert now["locked_by"] == "a"
        assert now["lock_expires_at"] > now["completed_at"]
        async with engine.connect() as tx:
            (state,) = await look.states(tx, [id_])
        assert state.processing_result == {
            "outcome": "superseded",
            "worker": "a",
            "revision": "r1",
            "reason": "a newer version is there",
        }

    async def test_complete_closes_the_dead_letter_row(self, engine: AsyncEngine) -> None:
        """An open row in the ERP's dead letter table is resolved; those of other events stay open."""
        mine, other = await event(engine, "1"), await event(engine, "2")
        async with engine.begin() as tx:
            for id_ in (mine, other):
                await tx.execute(
                    text(
                        "INSERT INTO tds_dead_letter_queue (id, sync_queue_id, entity_type, source_entity_id,"
                        " failure_reason, total_attempts, last_payload) VALUES"
                        " (gen_random_uuid(), :id, 'product', '1', 'x', 3, '{}')"
                    ),
                    {"id": id_},
                )
        await claim(engine)
        await complete(engine, "a", [mine])
        async with engine.connect() as tx:
            found = await tx.execute(text("SELECT sync_queue_id, resolved FROM tds_dead_letter_queue"))
            assert {each.sync_queue_id: each.resolved for each in found} == {mine: True, other: False}

    @pytest.mark.parametrize("status", ["pending", "retry", "completed", "dead_letter"])
    async def test_nothing_but_a_held_event_can_be_settled(self, engine: AsyncEngine, status: str) -> None:
        """No settling verb touches an event that is not in processing, not even its owner's."""
        id_ = await event(engine, "1", status=status, locked_by="a", next_retry_at="sql:now()")
        before = await bytes_of(engine, [id_])
        async with engine.begin() as tx:
            assert await settle.complete(tx, owner="a", revision="r1", results={id_: APPLIED}) == set()
            assert await settle.retry_later(tx, owner="a", revision="r1", failures=[failure(id_)]) == {}
            assert await settle.bury(tx, owner="a", revision="r1", failures=[failure(id_)]) == set()
            assert await settle.release(tx, owner="a") == set()
        assert await bytes_of(engine, [id_]) == before

    async def test_who_lost_the_lease_can_settle_nothing(self, engine: AsyncEngine) -> None:
        """After an expiry and a new claim, the former owner's verbs find nothing."""
        id_ = await event(engine, "1")
        await claim(engine, "a")
        await change(engine, id_, lock_expires_at="sql:now() - interval '1 second'")
        async with engine.begin() as tx:
            assert await settle.expire_leases(tx) == {id_: Status.RETRY}
        await claim(engine, "b")
        before = await bytes_of(engine, [id_])
        assert await complete(engine, "a", [id_]) == set()
        async with engine.begin() as tx:
            assert await settle.bury(tx, owner="a", revision="r1", failures=[failure(id_)]) == set()
            assert await settle.retry_later(tx, owner="a", revision="r1", failures=[failure(id_)]) == {}
            assert await settle.release(tx, owner="a") == set()
        assert await bytes_of(engine, [id_]) == before
        assert await complete(engine, "b", [id_]) == {id_}

    async def test_pauses_double_and_have_a_cap(self, engine: AsyncEngine) -> None:
        """The pause is 2, 4, 8 … minutes, a quarter more or less, and never longer than the cap."""
        id_ = await event(engine, "1", max_retry_attempts=30)
        for attempts, seconds in ((0, 120), (1, 240), (2, 480), (10, 3600)):
            await change(engine, id_, attempt_count=attempts, status="pending", next_retry_at="sql:NULL")
            await claim(engine)
            async with engine.begin() as tx:
                told = await settle.retry_later(tx, owner="a", revision="r1", failures=[failure(id_)])
            assert told == {id_: Status.RETRY}
            now = await row(engine, id_)
            pause = (now["next_retry_at"] - datetime.now(UTC)).total_seconds()
            assert 0.74 * seconds < pause <= 1.25 * seconds

    async def test_without_an_attempt_left_a_retry_is_a_burial(self, engine: AsyncEngine) -> None:
        """The last allowed attempt that fails makes a dead letter with its error, and no completion time."""
        id_ = await event(engine, "1", attempt_count=2)
        await claim(engine)
        async with engine.begin() as tx:
            told = await settle.retry_later(tx, owner="a", revision="r1", failures=[failure(id_)])
        assert told == {id_: Status.DEAD_LETTER}
        now = await row(engine, id_)
        assert (now["error_message"], now["error_code"]) == ("boom 17", "X")
        assert (now["completed_at"], now["next_retry_at"]) == (None, None)

    async def test_what_failed_keeps_its_lease_and_is_not_held_up_by_it(self, engine: AsyncEngine) -> None:
        """An old worker with an old list must not take a dead letter or a retry; we may, and at once when it is due."""
        retried, buried = await event(engine, "1"), await event(engine, "2")
        await claim(engine)
        async with engine.begin() as tx:
            await settle.retry_later(tx, owner="a", revision="r1", failures=[failure(retried)])
            await settle.bury(tx, owner="a", revision="r1", failures=[failure(buried)])
        for id_ in (retried, buried):
            now = await row(engine, id_)
            assert now["locked_by"] == "a"
            assert now["lock_expires_at"] > datetime.now(UTC)
        await change(engine, retried, next_retry_at="sql:now()")
        async with engine.begin() as tx:
            await redrive(tx, [buried])
        assert {each.id for each in await claim(engine, owner="b")} == {retried, buried}

    async def test_a_retry_in_other_hands_is_not_taken(self, engine: AsyncEngine) -> None:
        """Only the lease of the worker that recorded the failure is over; a later lease of another worker counts."""
        id_ = await event(engine, "1")
        await claim(engine)
        async with engine.begin() as tx:
            await settle.retry_later(tx, owner="a", revision="r1", failures=[failure(id_)])
            former = BeforeRedrive(id=str(id_), attempt_count=3, **dict.fromkeys(FORMER))
        await change(engine, id_, next_retry_at="sql:now()", locked_by="worker-1")
        assert await claim(engine, owner="b") == []
        async with engine.begin() as tx:
            assert await restore(tx, [former]) == []
            assert await restore(tx, [former], leased_before=datetime.now(UTC) + timedelta(seconds=1)) == [
                id_
            ]

    async def test_what_failed_before_stays_told(self, engine: AsyncEngine) -> None:
        """When it was first taken and the last ten failed attempts outlive retries, a wait and the completion."""
        id_ = await event(engine, "1", max_retry_attempts=30)
        missing = settle.Failure(
            id=id_, error_class=ErrorClass.MISSING_PARENT, code="missing_parent", message="x"
        )
        firsts = []
        for number in range(12):
            await claim(engine)
            firsts.append((await row(engine, id_))["started_at"])
            async with engine.begin() as tx:
                one = replace(failure(id_), code=f"E{number}")
                await settle.retry_later(tx, owner="a", revision=f"r{number}", failures=[one])
            await change(engine, id_, next_retry_at="sql:now()")
        await claim(engine)
        async with engine.begin() as tx:
            await settle.retry_later(tx, owner="a", revision="r1", failures=[missing])
        await change(engine, id_, next_retry_at="sql:now()")
        await claim(engine)
        assert await complete(engine, "a", [id_]) == {id_}
        told = (await row(engine, id_))["processing_result"]
        assert told["outcome"] == "applied"
        assert datetime.fromisoformat(told["admitted"]) == firsts[0]
        assert [attempt["code"] for attempt in told["attempts"]] == [f"E{number}" for number in range(2, 12)]
        assert told["attempts"][-1].keys() == {"at", "class", "code", "fingerprint", "revision"}
        assert told["attempts"][-1]["revision"] == "r11"

    @pytest.mark.parametrize("junk", ["sql:'7'::jsonb", 'sql:\'{"attempts": 3, "admitted": null}\'::jsonb'])
    async def test_what_others_stored_as_a_result_stops_nothing(self, engine: AsyncEngine, junk: str) -> None:
        """The ERP's own workers may have stored any JSON: a failure and a completion still settle the event."""
        ids = [await event(engine, str(n), processing_result=junk) for n in range(3)]
        await claim(engine)
        async with engine.begin() as tx:
            await settle.retry_later(tx, owner="a", revision="r1", failures=[failure(ids[0])])
            await settle.bury(tx, owner="a", revision="r1", failures=[failure(ids[1])])
        assert await complete(engine, "a", [ids[2]]) == {ids[2]}
        for id_ in ids[:2]:
            told = (await row(engine, id_))["processing_result"]
            assert [attempt["code"] for attempt in told["attempts"]] == ["X"]

    async def test_a_burial_keeps_all_that_is_known(self, engine: AsyncEngine) -> None:
        """A dead letter says class, field, SQLSTATE and fingerprint, and has no completion time."""
        id_ = await event(engine, "1")
        await claim(engine)
        told = settle.Failure(
            id=id_,
            error_class=ErrorClass.PERMANENT,
            code="C" * 80,
            message="rate 'abc' is no number\x00",
            sqlstate="22P02",
            field="line_items[2].rate",
        )
        async with engine.begin() as tx:
            assert await settle.bury(tx, owner="a", revision="r1", failures=[told]) == {id_}
            (state,) = await look.states(tx, [id_])
        assert state.status is Status.DEAD_LETTER
        assert state.completed_at is None
        assert state.error_code == "C" * 50
        result = dict(state.processing_result or {})
        assert [attempt["code"] for attempt in result.pop("attempts")] == ["C" * 50]
        assert datetime.fromisoformat(result.pop("admitted")) == state.started_at
        assert result == {
            "class": "permanent",
            "field": "line_items[2].rate",
            "sqlstate": "22P02",
            "fingerprint": "rate <value> is no number",
            "worker": "a",
            "revision": "r1",
        }

    async def test_a_release_burns_no_attempt(self, engine: AsyncEngine) -> None:
        """What is given back is to the last byte what it was before it was claimed."""
        ids = [
            await event(engine, "1"),
            await event(
                engine, "2", status="retry", attempt_count=1, next_retry_at="sql:now()", error_code="X"
            ),
        ]
        before = await bytes_of(engine, ids)
        assert len(await claim(engine)) == 2
        async with engine.begin() as tx:
            assert await settle.release(tx, owner="b") == set()
            assert await settle.release(tx, owner="a", ids=[ids[0]]) == {ids[0]}
            assert await settle.release(tx, owner="a") == {ids[1]}
        assert await bytes_of(engine, ids) == before

    async def test_an_expired_lease_costs_no_attempt(self, engine: AsyncEngine) -> None:
        """An event whose worker died is due at once; a running lease stays."""
        dead, alive = await event(engine, "1"), await event(engine, "2")
        owner = new_owner("w")
        await claim(engine, owner)
        await change(engine, dead, lock_expires_at="sql:now()")
        async with engine.begin() as tx:
            assert await settle.expire_leases(tx) == {dead: Status.RETRY}
        now = await row(engine, dead)
        assert (now["attempt_count"], now["error_code"], now["locked_by"]) == (
            0,
            "lease_expired",
            "lost lease",
        )
        assert [each.id for each in await claim(engine, "b")] == [dead]
        assert (await row(engine, alive))["locked_by"] == owner

    async def test_an_expiry_waits_for_nobody(self, engine: AsyncEngine) -> None:
        """A row that its worker is completing at this very moment is skipped, and then completed."""
        id_ = await event(engine, "1")
        await claim(engine)
        await change(engine, id_, lock_expires_at="sql:now()")
        async with engine.begin() as busy, engine.begin() as tx:
            assert await settle.complete(busy, owner="a", revision="r1", results={id_: APPLIED}) == {id_}
            assert await asyncio.wait_for(settle.expire_leases(tx), 5) == {}
        assert (await row(engine, id_))["status"] == "completed"

    async def test_what_the_old_worker_left_in_processing_comes_back(self, engine: AsyncEngine) -> None:
        """In processing for an hour without a lease is lost; for a minute it is not."""
        lost = await event(engine, "1", status="processing", started_at="sql:now() - interval '2 hours'")
        fresh = await event(engine, "2", status="processing", started_at="sql:now() - interval '1 minute'")
        async with engine.begin() as tx:
            assert await settle.expire_leases(tx) == {lost: Status.RETRY}
        assert (await row(engine, fresh))["status"] == "processing"

    async def test_a_kind_without_a_handler_is_buried_with_the_reason(self, engine: AsyncEngine) -> None:
        """An event of a type without a handler is never claimed, and does not wait forever."""
        id_ = await event(engine, "1")
        await change(engine, id_, entity_type="sql:'branch'")
        assert await claim(engine) == []
        async with engine.begin() as tx:
            assert await settle.refuse_unknown(tx) == {id_}
            (letter,) = await look.dead_letters(tx)
        assert (letter.entity, letter.raw_type, letter.error_code) == (None, "branch", "unknown_type")
        assert "branch" in (letter.error_message or "")
