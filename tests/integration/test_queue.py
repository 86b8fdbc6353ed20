"""The queue's verbs, each on a real database and mostly on the way that goes wrong."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from queue_events import bytes_of, change, dead_letter, event, row
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.webhooks import queue
from handlers.webhooks.event import EntityType, ErrorClass, Event, Outcome, Result, Status

APPLIED = Result(outcome=Outcome.APPLIED, target="7")


async def claim(engine: AsyncEngine, owner: str = "a", limit: int = 100, **narrow: object) -> list[Event]:
    async with engine.begin() as tx:
        return await queue.claim(tx, owner=owner, limit=limit, lease_seconds=60, **narrow)  # type: ignore[arg-type]


async def complete(engine: AsyncEngine, owner: str, ids: list[UUID]) -> set[UUID]:
    async with engine.begin() as tx:
        return await queue.complete(tx, owner=owner, revision="r1", results=dict.fromkeys(ids, APPLIED))


def failure(
    id_: UUID, error_class: ErrorClass = ErrorClass.TRANSIENT, message: str = "boom 17"
) -> queue.Failure:
    return queue.Failure(id=id_, error_class=error_class, code="X", message=message, sqlstate="40P01")


FORMER = [field.name for field in fields(queue.Former) if field.name not in ("id", "attempt_count")]


class TestClaim:
    async def test_a_claim_leases_and_counts_the_attempt(self, engine: AsyncEngine) -> None:
        """A claimed event is in processing, has an owner, a time, an attempt, and its payload as text."""
        id_ = await event(engine, "1")
        (claimed,) = await claim(engine)
        assert (claimed.id, claimed.key, claimed.attempt, claimed.attempts_max) == (id_, "1", 1, 3)
        assert json.loads(claimed.payload)["item_id"] == "1"
        now = await row(engine, id_)
        assert (now["status"], now["locked_by"], now["attempt_count"]) == ("processing", "a", 1)
        assert timedelta(seconds=50) < now["lock_expires_at"] - datetime.now(UTC) < timedelta(seconds=61)

    async def test_numbers_in_a_payload_stay_exact(self, engine: AsyncEngine) -> None:
        """Money keeps its digits and trailing zeros on the way through the queue."""
        async with engine.begin() as tx:
            await queue.insert_event(
                tx, entity=EntityType.PRODUCT, key="1", payload_text='{"rate": 10.10, "n": 9007199254740993}'
            )
        (claimed,) = await claim(engine)
        assert "10.10" in claimed.payload
        assert "9007199254740993" in claimed.payload

    async def test_two_open_claims_never_share_an_event(self, engine: AsyncEngine) -> None:
        """While one claim is not committed yet, another connection takes other events and does not wait."""
        ids = {await event(engine, str(n)) for n in range(10)}
        async with engine.begin() as one, engine.begin() as two:
            first = await queue.claim(one, owner="a", limit=6, lease_seconds=60)
            second = await asyncio.wait_for(queue.claim(two, owner="b", limit=6, lease_seconds=60), 5)
        assert len(first) == 6
        assert len(second) == 4
        assert {each.id for each in first + second} == ids

    async def test_many_claims_at_once_take_each_event_once(self, engine: AsyncEngine) -> None:
        """Eight claimers in a race: every event has exactly one owner and one attempt."""
        ids = [await event(engine, str(n)) for n in range(60)]

        async def take(owner: str) -> list[UUID]:
            mine: list[UUID] = []
            while claimed := await claim(engine, owner, limit=5):
                mine += [each.id for each in claimed]
            return mine

        taken = [id_ for each in await asyncio.gather(*(take(f"w{n}") for n in range(8))) for id_ in each]
        rest = await claim(engine, "late")
        assert sorted(taken + [each.id for each in rest]) == sorted(ids)

    async def test_the_oldest_come_first(self, engine: AsyncEngine) -> None:
        """With a limit, the oldest events are taken, in their order."""
        ids = [await event(engine, str(n), age=100 - n) for n in range(5)]
        assert [each.id for each in await claim(engine, limit=3)] == ids[:3]

    async def test_due_retries_are_not_starved_by_a_backlog(self, engine: AsyncEngine) -> None:
        """A due retry is taken before pending events that would fill the batch."""
        for n in range(5):
            await event(engine, str(n), age=1000)
        due = await event(engine, "due", status="retry", next_retry_at="sql:now() - interval '1 second'")
        assert due in {each.id for each in await claim(engine, limit=3)}

    async def test_a_retry_waits_for_its_time(self, engine: AsyncEngine) -> None:
        """An event in retry is not taken before its time."""
        await event(engine, "1", status="retry", next_retry_at="sql:now() + interval '1 hour'")
        assert await claim(engine) == []

    @pytest.mark.parametrize("status", ["completed", "failed", "dead_letter", "processing"])
    async def test_only_due_events_are_taken(self, engine: AsyncEngine, status: str) -> None:
        """What is settled or in work is never claimed."""
        await event(engine, "1", status=status)
        assert await claim(engine) == []

    async def test_a_lease_of_the_old_worker_is_respected_until_it_ends(self, engine: AsyncEngine) -> None:
        """The ERP's worker leases rows that stay pending: they are its own until that lease has run out."""
        id_ = await event(
            engine, "1", locked_by="worker-1", lock_expires_at="sql:now() + interval '1 minute'"
        )
        assert await claim(engine) == []
        await change(engine, id_, lock_expires_at="sql:now() - interval '1 second'")
        assert [each.id for each in await claim(engine)] == [id_]

    async def test_entities_narrow_the_claim(self, engine: AsyncEngine) -> None:
        """A claim for some kinds leaves the others alone, in the queue's own spelling of each."""
        kinds = {kind: await event(engine, "1", entity=kind) for kind in EntityType}
        (order,) = await claim(engine, entities=[EntityType.SALES_ORDER])
        assert order.entity is EntityType.SALES_ORDER
        rest = await claim(engine)
        assert {each.entity: each.id for each in [order, *rest]} == kinds

    async def test_ids_narrow_the_claim(self, engine: AsyncEngine) -> None:
        """A claim of one event takes that one, whatever else is due."""
        await event(engine, "1")
        wanted = await event(engine, "2")
        assert [each.id for each in await claim(engine, ids=[wanted])] == [wanted]


class TestOrder:
    """Events of one record are applied in order, whoever applies them."""

    async def test_a_newer_event_waits_for_the_one_in_work(self, engine: AsyncEngine) -> None:
        """While the older event is leased, nobody else gets the newer one; afterwards they do."""
        older = await event(engine, "1", age=10)
        newer = await event(engine, "1")
        assert [each.id for each in await claim(engine, "a", limit=1)] == [older]
        assert await claim(engine, "b") == []
        await complete(engine, "a", [older])
        assert [each.id for each in await claim(engine, "b")] == [newer]

    async def test_a_newer_event_waits_for_the_one_in_retry(self, engine: AsyncEngine) -> None:
        """While the older event waits for its next attempt, the newer one waits as well."""
        await event(engine, "1", age=10, status="retry", next_retry_at="sql:now() + interval '1 hour'")
        await event(engine, "1")
        other = await event(engine, "2")
        assert [each.id for each in await claim(engine)] == [other]

    async def test_a_newer_event_waits_for_a_claim_that_has_not_committed(self, engine: AsyncEngine) -> None:
        """The older event is still pending to everybody else, and yet the newer one is not given away."""
        await event(engine, "1", age=10)
        await event(engine, "1")
        async with engine.begin() as one, engine.begin() as two:
            first = await queue.claim(one, owner="a", limit=1, lease_seconds=60)
            second = await queue.claim(two, owner="b", limit=1, lease_seconds=60)
        assert len(first) == 1
        assert second == []

    async def test_both_may_come_in_one_batch(self, engine: AsyncEngine) -> None:
        """One worker may hold both: it applies them in their order."""
        older = await event(engine, "1", age=10)
        newer = await event(engine, "1")
        assert [each.id for each in await claim(engine)] == [older, newer]

    async def test_a_due_retry_and_its_successor_come_together(self, engine: AsyncEngine) -> None:
        """A due older retry does not hold the newer event up: they come in one batch."""
        due = await event(engine, "1", age=10, status="retry", next_retry_at="sql:now()")
        newer = await event(engine, "1")
        assert [each.id for each in await claim(engine)] == [due, newer]

    async def test_a_dead_letter_holds_nothing_up(self, engine: AsyncEngine) -> None:
        """A dead letter has come to rest: newer events of its record go on."""
        await dead_letter(engine, "1", age=10)
        newer = await event(engine, "1")
        assert [each.id for each in await claim(engine)] == [newer]

    async def test_the_same_key_of_another_kind_is_another_record(self, engine: AsyncEngine) -> None:
        """A customer's event does not wait for a product's with the same number."""
        await event(engine, "1", age=10, status="retry", next_retry_at="sql:now() + interval '1 hour'")
        other = await event(engine, "1", entity=EntityType.CUSTOMER)
        assert [each.id for each in await claim(engine)] == [other]


class TestSettle:
    async def test_complete_says_who_did_what(self, engine: AsyncEngine) -> None:
        """A completed event has its target, time, outcome with worker and revision, and no error."""
        id_ = await event(engine, "1", error_message="old", error_code="old", attempt_count=1)
        await claim(engine)
        async with engine.begin() as tx:
            overtaken = Result(outcome=Outcome.SUPERSEDED, reason="a newer version is there", target="7")
            assert await queue.complete(tx, owner="a", revision="r1", results={id_: overtaken}) == {id_}
        now = await row(engine, id_)
        assert (now["status"], now["target_entity_id"]) == ("completed", "7")
        assert (now["error_message"], now["error_code"]) == (None, None)
        assert now["completed_at"] >= now["started_at"]
        # The lease runs on: the ERP's own worker, with an old list in its hand, looks at nothing else.
        assert now["locked_by"] == "a"
        assert now["lock_expires_at"] > now["completed_at"]
        async with engine.connect() as tx:
            (state,) = await queue.states(tx, [id_])
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
            assert await queue.complete(tx, owner="a", revision="r1", results={id_: APPLIED}) == set()
            assert await queue.retry_later(tx, owner="a", revision="r1", failures=[failure(id_)]) == {}
            assert await queue.bury(tx, owner="a", revision="r1", failures=[failure(id_)]) == set()
            assert await queue.release(tx, owner="a") == set()
        assert await bytes_of(engine, [id_]) == before

    async def test_who_lost_the_lease_can_settle_nothing(self, engine: AsyncEngine) -> None:
        """After an expiry and a new claim, the former owner's verbs find nothing."""
        id_ = await event(engine, "1")
        await claim(engine, "a")
        await change(engine, id_, lock_expires_at="sql:now() - interval '1 second'")
        async with engine.begin() as tx:
            assert await queue.expire_leases(tx) == {id_: Status.RETRY}
        await claim(engine, "b")
        before = await bytes_of(engine, [id_])
        assert await complete(engine, "a", [id_]) == set()
        async with engine.begin() as tx:
            assert await queue.bury(tx, owner="a", revision="r1", failures=[failure(id_)]) == set()
            assert await queue.retry_later(tx, owner="a", revision="r1", failures=[failure(id_)]) == {}
            assert await queue.release(tx, owner="a") == set()
        assert await bytes_of(engine, [id_]) == before
        assert await complete(engine, "b", [id_]) == {id_}

    async def test_pauses_double_and_have_a_cap(self, engine: AsyncEngine) -> None:
        """The pause is 2, 4, 8 … minutes, a quarter more or less, and never longer than the cap."""
        id_ = await event(engine, "1", max_retry_attempts=30)
        for attempts, seconds in ((0, 120), (1, 240), (2, 480), (10, 3600)):
            await change(engine, id_, attempt_count=attempts, status="pending", next_retry_at="sql:NULL")
            await claim(engine)
            async with engine.begin() as tx:
                told = await queue.retry_later(tx, owner="a", revision="r1", failures=[failure(id_)])
            assert told == {id_: Status.RETRY}
            now = await row(engine, id_)
            pause = (now["next_retry_at"] - datetime.now(UTC)).total_seconds()
            assert 0.74 * seconds < pause <= 1.25 * seconds

    async def test_without_an_attempt_left_a_retry_is_a_burial(self, engine: AsyncEngine) -> None:
        """The last allowed attempt that fails makes a dead letter with its error, and no completion time."""
        id_ = await event(engine, "1", attempt_count=2)
        await claim(engine)
        async with engine.begin() as tx:
            told = await queue.retry_later(tx, owner="a", revision="r1", failures=[failure(id_)])
        assert told == {id_: Status.DEAD_LETTER}
        now = await row(engine, id_)
        assert (now["error_message"], now["error_code"]) == ("boom 17", "X")
        assert (now["completed_at"], now["next_retry_at"]) == (None, None)

    async def test_what_failed_keeps_its_lease_and_is_not_held_up_by_it(self, engine: AsyncEngine) -> None:
        """An old worker with an old list must not take a dead letter or a retry; we may, and at once when it is due."""
        retried, buried = await event(engine, "1"), await event(engine, "2")
        await claim(engine)
        async with engine.begin() as tx:
            await queue.retry_later(tx, owner="a", revision="r1", failures=[failure(retried)])
            await queue.bury(tx, owner="a", revision="r1", failures=[failure(buried)])
        for id_ in (retried, buried):
            now = await row(engine, id_)
            assert now["locked_by"] == "a"
            assert now["lock_expires_at"] > datetime.now(UTC)
        await change(engine, retried, next_retry_at="sql:now()")
        async with engine.begin() as tx:
            await queue.redrive(tx, [buried])
        assert {each.id for each in await claim(engine, owner="b")} == {retried, buried}

    async def test_a_retry_in_other_hands_is_not_taken(self, engine: AsyncEngine) -> None:
        """Only the lease of the worker that said why it failed is over; a later one of somebody else counts."""
        id_ = await event(engine, "1")
        await claim(engine)
        async with engine.begin() as tx:
            await queue.retry_later(tx, owner="a", revision="r1", failures=[failure(id_)])
            former = queue.Former(id=str(id_), attempt_count=3, **dict.fromkeys(FORMER))
        await change(engine, id_, next_retry_at="sql:now()", locked_by="worker-1")
        assert await claim(engine, owner="b") == []
        async with engine.begin() as tx:
            assert await queue.restore(tx, [former]) == []
            assert await queue.restore(tx, [former], even_leased=True) == [id_]

    async def test_a_burial_keeps_all_that_is_known(self, engine: AsyncEngine) -> None:
        """A dead letter says class, field, SQLSTATE and fingerprint, and has no completion time."""
        id_ = await event(engine, "1")
        await claim(engine)
        told = queue.Failure(
            id=id_,
            error_class=ErrorClass.PERMANENT,
            code="C" * 80,
            message="rate 'abc' is no number\x00",
            sqlstate="22P02",
            field="line_items[2].rate",
        )
        async with engine.begin() as tx:
            assert await queue.bury(tx, owner="a", revision="r1", failures=[told]) == {id_}
            (state,) = await queue.states(tx, [id_])
        assert state.status is Status.DEAD_LETTER
        assert state.completed_at is None
        assert state.error_code == "C" * 50
        assert state.processing_result == {
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
            assert await queue.release(tx, owner="b") == set()
            assert await queue.release(tx, owner="a", ids=[ids[0]]) == {ids[0]}
            assert await queue.release(tx, owner="a") == {ids[1]}
        assert await bytes_of(engine, ids) == before

    async def test_an_expired_lease_costs_its_attempt(self, engine: AsyncEngine) -> None:
        """An event whose worker died is due at once, its attempt counted; a running lease stays."""
        dead, alive = await event(engine, "1"), await event(engine, "2")
        await claim(engine)
        await change(engine, dead, lock_expires_at="sql:now()")
        async with engine.begin() as tx:
            assert await queue.expire_leases(tx) == {dead: Status.RETRY}
        now = await row(engine, dead)
        assert (now["attempt_count"], now["error_code"], now["locked_by"]) == (1, "lease_expired", None)
        assert [each.id for each in await claim(engine, "b")] == [dead]
        assert (await row(engine, alive))["locked_by"] == "a"

    async def test_an_event_that_costs_every_worker_its_lease_is_buried(self, engine: AsyncEngine) -> None:
        """What was in work each time that many workers died does not come back for ever."""
        id_ = await event(engine, "1", status="processing", attempt_count=10, locked_by="a")
        await change(engine, id_, lock_expires_at="sql:now()")
        async with engine.begin() as tx:
            assert await queue.expire_leases(tx) == {id_: Status.DEAD_LETTER}

    async def test_an_expiry_waits_for_nobody(self, engine: AsyncEngine) -> None:
        """A row that its worker is completing at this very moment is skipped, and then completed."""
        id_ = await event(engine, "1")
        await claim(engine)
        await change(engine, id_, lock_expires_at="sql:now()")
        async with engine.begin() as busy, engine.begin() as tx:
            assert await queue.complete(busy, owner="a", revision="r1", results={id_: APPLIED}) == {id_}
            assert await asyncio.wait_for(queue.expire_leases(tx), 5) == {}
        assert (await row(engine, id_))["status"] == "completed"

    async def test_what_the_old_worker_left_in_processing_comes_back(self, engine: AsyncEngine) -> None:
        """In processing for an hour without a lease is lost; for a minute it is not."""
        lost = await event(engine, "1", status="processing", started_at="sql:now() - interval '2 hours'")
        fresh = await event(engine, "2", status="processing", started_at="sql:now() - interval '1 minute'")
        async with engine.begin() as tx:
            assert await queue.expire_leases(tx) == {lost: Status.RETRY}
        assert (await row(engine, fresh))["status"] == "processing"

    async def test_a_kind_without_a_handler_is_buried_with_the_reason(self, engine: AsyncEngine) -> None:
        """Of a kind that nobody handles, an event is never claimed and does not wait for ever."""
        id_ = await event(engine, "1")
        await change(engine, id_, entity_type="sql:'branch'")
        assert await claim(engine) == []
        async with engine.begin() as tx:
            assert await queue.refuse_unknown(tx) == {id_}
            (letter,) = await queue.dead_letters(tx)
        assert (letter.entity, letter.raw_type, letter.error_code) == (None, "branch", "unknown_type")
        assert "branch" in (letter.error_message or "")


class TestRedrive:
    async def test_exactly_the_named_dead_letters_move(self, engine: AsyncEngine) -> None:
        """Neither another dead letter nor an event in another status nor an unknown id is touched."""
        mine = await dead_letter(engine, "1")
        others = [await dead_letter(engine, "2"), *[await event(engine, s, status=s) for s in Status]]
        before = await bytes_of(engine, others)
        named = [mine, *[id_ for id_ in others[1:] if id_ != others[-1]], uuid4()]
        async with engine.begin() as tx:
            formers = await queue.redrive(tx, named)
        assert [former.id for former in formers] == [str(mine)]
        assert await bytes_of(engine, others) == before

    async def test_a_redriven_event_starts_clean(self, engine: AsyncEngine) -> None:
        """Nothing of its former life confuses a report: attempts, error, lock, times and result are wiped."""
        times = ("lock_expires_at", "next_retry_at", "started_at", "completed_at")
        id_ = await dead_letter(
            engine, "1", locked_by="x", processing_result="sql:'{}'", **dict.fromkeys(times, "sql:now()")
        )
        async with engine.begin() as tx:
            await queue.redrive(tx, [id_])
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
            kept = json.dumps([asdict(former) for former in await queue.redrive(tx, ids)])
        assert await bytes_of(engine, ids) != before
        async with engine.begin() as tx:
            formers = [queue.Former(**each) for each in json.loads(kept)]
            assert sorted(await queue.restore(tx, formers)) == sorted(ids)
        assert await bytes_of(engine, ids) == before

    async def test_restore_takes_back_what_waits_in_retry_or_lost_its_worker(
        self, engine: AsyncEngine
    ) -> None:
        """Unsettled means pending, in retry, or held by a lease that has run out."""
        ids = [await dead_letter(engine, str(n)) for n in range(3)]
        before = await bytes_of(engine, ids)
        async with engine.begin() as tx:
            formers = await queue.redrive(tx, ids)
        await claim(engine, "a", ids=ids[1:])
        async with engine.begin() as tx:
            await queue.retry_later(tx, owner="a", revision="r1", failures=[failure(ids[1])])
        await change(engine, ids[2], lock_expires_at="sql:now()")
        async with engine.begin() as tx:
            assert len(await queue.restore(tx, formers)) == 3
        assert await bytes_of(engine, ids) == before

    async def test_restore_leaves_alone_what_is_settled_or_in_work(self, engine: AsyncEngine) -> None:
        """A completed event, one that died anew, and one that a worker holds stay as they are."""
        ids = [await dead_letter(engine, str(n)) for n in range(3)]
        async with engine.begin() as tx:
            formers = await queue.redrive(tx, ids)
        await claim(engine, "a")
        await complete(engine, "a", [ids[0]])
        async with engine.begin() as tx:
            await queue.bury(tx, owner="a", revision="r1", failures=[failure(ids[1])])
        before = await bytes_of(engine, ids)
        async with engine.begin() as tx:
            assert await queue.restore(tx, formers) == []
        assert await bytes_of(engine, ids) == before

    async def test_a_lease_binds_nobody_once_the_workers_are_known_to_be_gone(
        self, engine: AsyncEngine
    ) -> None:
        """Even a running lease is taken back then; a worker that was there after all can complete nothing."""
        id_ = await dead_letter(engine, "1")
        before = await bytes_of(engine, [id_])
        async with engine.begin() as tx:
            formers = await queue.redrive(tx, [id_])
        await claim(engine, "a")
        async with engine.begin() as tx:
            assert await queue.restore(tx, formers, even_leased=True) == [id_]
        assert await complete(engine, "a", [id_]) == set()
        assert await bytes_of(engine, [id_]) == before

    async def test_two_redrives_at_once_move_an_event_once(self, engine: AsyncEngine) -> None:
        """Only one of two managers gets the former values; the other gets none."""
        ids = [await dead_letter(engine, str(n)) for n in range(20)]

        async def go() -> int:
            async with engine.begin() as tx:
                return len(await queue.redrive(tx, ids))

        assert sorted(await asyncio.gather(go(), go())) == [0, 20]

    async def test_a_redrive_that_is_rolled_back_wakes_nobody(
        self, engine: AsyncEngine, database_url: str
    ) -> None:
        """The call to the workers is part of the transaction."""
        heard: list[str] = []
        listener = await asyncpg.connect(database_url)
        await listener.add_listener(queue.CHANNEL, lambda *_: heard.append("x"))
        id_ = await dead_letter(engine, "1")
        heard.clear()
        async with engine.connect() as tx:
            await queue.redrive(tx, [id_])
            await tx.rollback()
        await listener.fetchval("SELECT 1")
        assert heard == []
        async with engine.begin() as tx:
            await queue.redrive(tx, [id_])
        await listener.fetchval("SELECT 1")
        assert heard == ["x"]
        await listener.close()


class TestReading:
    async def test_every_status_is_counted_also_at_none(self, engine: AsyncEngine) -> None:
        """An empty queue is seven zeros, not an empty answer."""
        async with engine.connect() as tx:
            assert await queue.counts(tx) == dict.fromkeys(Status, 0)
        await event(engine, "1")
        async with engine.connect() as tx:
            assert (await queue.counts(tx))[Status.PENDING] == 1

    async def test_a_record_counts_once_by_its_first_outcome(self, engine: AsyncEngine) -> None:
        """Ten failures of one record are one failure, and a late success does not hide it."""
        for n in range(3):
            await event(engine, "1", age=50 - n, status="dead_letter", error_message=f"no item {n}")
        await event(engine, "1", age=1, status="completed")
        await event(engine, "2", age=50, status="completed")
        await event(engine, "2", age=1, status="dead_letter")
        await event(engine, "3", age=50, status="failed")
        async with engine.connect() as tx:
            (told,) = await queue.outcomes_since(
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

    async def test_unfinished_events_are_late_at_their_age(self, engine: AsyncEngine) -> None:
        """Pending, in work or in retry: young ones are open, old ones are late."""
        for n, status in enumerate(("pending", "processing", "retry")):
            await event(engine, f"young{n}", status=status, age=10)
            await event(engine, f"old{n}", status=status, age=70)
        async with engine.connect() as tx:
            (told,) = await queue.outcomes_since(
                tx, since=datetime.now(UTC) - timedelta(minutes=2), late_seconds=60
            )
        assert (told.completed, told.failed, told.open, told.late) == (0, 0, 3, 3)

    async def test_replays_and_older_events_do_not_count(self, engine: AsyncEngine) -> None:
        """Live traffic is what arrived in the window, without what the drain sent back."""
        await event(engine, "1", age=600, status="completed")
        replayed = await dead_letter(engine, "2")
        async with engine.connect() as tx:
            told = await queue.outcomes_since(
                tx, since=datetime.now(UTC) - timedelta(minutes=2), excluding=[replayed], late_seconds=60
            )
        assert told == []

    async def test_an_unknown_key_in_processing_result_is_no_error(self, engine: AsyncEngine) -> None:
        """What another program left in processing_result, an object or not, is read without complaint."""
        id_ = await event(engine, "1", processing_result="sql:'[1]'")
        async with engine.connect() as tx:
            (state,) = await queue.states(tx, [id_, uuid4()])
        assert state.processing_result is None

    async def test_a_payload_that_is_not_json_is_refused_whole(self, engine: AsyncEngine) -> None:
        """Neither the inbox nor the queue keeps half an event."""
        async with engine.connect() as tx:
            with pytest.raises(DBAPIError):
                await queue.insert_event(tx, entity=EntityType.PRODUCT, key="1", payload_text="{")
        async with engine.connect() as tx:
            assert (await tx.execute(text("SELECT count(*) FROM tds_inbox_events"))).scalar_one() == 0
