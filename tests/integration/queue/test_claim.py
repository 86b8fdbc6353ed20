"""Claiming: which worker gets which events, in which order, and which events are never claimed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.queue import insert
from handlers.queue.claim import claim as claim_events
from handlers.queue.event import EntityType
from tests.integration.queue.events import change, claim, complete, dead_letter, event, row


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
            await insert.insert_event(
                tx, entity=EntityType.PRODUCT, key="1", payload_text='{"rate": 10.10, "n": 9007199254740993}'
            )
        (claimed,) = await claim(engine)
        assert "10.10" in claimed.payload
        assert "9007199254740993" in claimed.payload

    async def test_two_open_claims_never_share_an_event(self, engine: AsyncEngine) -> None:
        """While one claim is not committed yet, another connection takes other events and does not wait."""
        ids = {await event(engine, str(n)) for n in range(10)}
        async with engine.begin() as one, engine.begin() as two:
            first = await claim_events(one, owner="a", limit=6, lease_seconds=60)
            second = await asyncio.wait_for(claim_events(two, owner="b", limit=6, lease_seconds=60), 5)
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
    """Events of one record are applied in order, by any worker."""

    async def test_a_newer_event_waits_for_the_one_in_work(self, engine: AsyncEngine) -> None:
        """While the older event is leased, no other worker gets the newer one; afterwards they do."""
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
            first = await claim_events(one, owner="a", limit=1, lease_seconds=60)
            second = await claim_events(two, owner="b", limit=1, lease_seconds=60)
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
        """A dead letter is settled: newer events of its record continue."""
        await dead_letter(engine, "1", age=10)
        newer = await event(engine, "1")
        assert [each.id for each in await claim(engine)] == [newer]

    async def test_the_same_key_of_another_kind_is_another_record(self, engine: AsyncEngine) -> None:
        """A customer's event does not wait for a product's with the same number."""
        await event(engine, "1", age=10, status="retry", next_retry_at="sql:now() + interval '1 hour'")
        other = await event(engine, "1", entity=EntityType.CUSTOMER)
        assert [each.id for each in await claim(engine)] == [other]
