"""Claims when there is much of one thing: thousands of events of one record, a batch full of what must wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.queue import in_hand, look, settle
from handlers.queue.claim import claim, lock
from handlers.queue.event import ErrorClass, Event, Status
from tests.integration.queue.events import change, event


async def rows_read(tx: AsyncConnection) -> int:
    """Rows of the queue that this transaction has read."""
    found = await tx.execute(
        text(
            "SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_xact_user_tables"
            " WHERE relname = 'tds_sync_queue'"
        )
    )
    return int(found.scalar_one())


async def by_lease(tx: AsyncConnection, limit: int) -> list[Event]:
    return await claim(tx, owner="me", limit=limit, lease_seconds=60)


async def by_lock(tx: AsyncConnection, limit: int) -> list[Event]:
    return await lock(tx, batch=in_hand.new_batch(), limit=limit)


Take = Callable[[AsyncConnection, int], Awaitable[list[Event]]]
BOTH_WAYS = pytest.mark.parametrize("take", [by_lease, by_lock])


async def crowd(engine: AsyncEngine, events: int) -> None:
    """So many pending events of one record, one second after the other."""
    await event(engine, "1", age=events)
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO tds_sync_queue (id, inbox_event_id, entity_type, source_entity_id, operation_type,"
                " validated_payload, status, priority, created_at)"
                " SELECT gen_random_uuid(), inbox_event_id, entity_type, source_entity_id, operation_type,"
                " validated_payload, status, priority, created_at + n * interval '1 second'"
                " FROM tds_sync_queue, generate_series(1, :more) n"
            ),
            {"more": events - 1},
        )
    async with engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(text("ANALYZE tds_sync_queue"))


async def burst(engine: AsyncEngine, status: str, key: str = "id::text") -> None:
    """All events are open now and due, with statistics from when they were done; *key* is SQL for their records."""
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TABLE tds_sync_queue SET (autovacuum_enabled = off)"))
        await tx.execute(text("UPDATE tds_sync_queue SET status = 'completed', source_entity_id = id::text"))
        await tx.execute(text("ANALYZE tds_sync_queue"))
        await tx.execute(
            text(
                f"UPDATE tds_sync_queue SET source_entity_id = {key}, status = CAST(:status AS tds_event_status),"
                " next_retry_at = CASE WHEN :status = 'retry' THEN now() - interval '1 minute' END"
            ),
            {"status": status},
        )


@pytest.mark.parametrize("held", [False, True])
async def test_a_claim_reads_the_events_of_a_record_a_few_times_and_not_for_each(
    engine: AsyncEngine, held: bool
) -> None:
    """A thousand events of one record, half of them leased by other workers: a claim still works."""
    await crowd(engine, 1000)
    if held:
        async with engine.begin() as tx:
            assert len(await claim(tx, owner="other", limit=500, lease_seconds=60)) == 500
    async with engine.begin() as tx:
        claimed = await claim(tx, owner="me", limit=500, lease_seconds=60)
        assert len(claimed) == (0 if held else 500)
        assert await rows_read(tx) < 20 * 1000


@BOTH_WAYS
@pytest.mark.parametrize("adopted", [True, False])
@pytest.mark.parametrize("status", ["pending", "retry"])
async def test_a_claim_after_a_burst_does_not_read_the_burst(
    engine: AsyncEngine, status: str, adopted: bool, take: Take
) -> None:
    """With statistics from before it. Due retries need the index of `db adopt` for that."""
    if not adopted:
        async with engine.begin() as tx:
            for name in ("pending", "retries"):
                await tx.execute(text(f"DROP INDEX ix_tds_sync_queue_{name}"))
    await crowd(engine, 3000)
    await burst(engine, status)
    async with engine.begin() as tx:
        before = await rows_read(tx)
        assert len(await take(tx, 1)) == 1
        assert await rows_read(tx) - before < (200 if adopted or status == "pending" else 20_000)


@pytest.mark.parametrize(
    "first", [{"status": "retry"}, {"status": "processing"}], ids=lambda first: first["status"]
)
@pytest.mark.parametrize("status", ["pending", "retry"])
@BOTH_WAYS
async def test_a_crowd_behind_one_event_is_passed_over_in_one_walk(
    engine: AsyncEngine, status: str, first: dict[str, object], take: Take
) -> None:
    """Each event of the record is read twice, and not once for each other one; with statistics from before, too."""
    await crowd(engine, 3000)
    await burst(engine, status, key="'1'")
    oldest = await event(engine, "1", age=4000)
    await change(engine, oldest, next_retry_at="sql:now() + interval '1 hour'", **first)
    other = await event(engine, "2")
    async with engine.begin() as tx:
        before = await rows_read(tx)
        [claimed] = await take(tx, 100)
        assert claimed.id == other
        assert await rows_read(tx) - before < 5 * 3000


async def test_retries_of_a_record_keep_their_order(engine: AsyncEngine) -> None:
    """They are taken by the time of their retry: the newer event of a record is not taken before the older one."""
    older, newer = await event(engine, "1", age=60), await event(engine, "1", age=30)
    await change(engine, older, status="retry", next_retry_at="sql:now() - interval '1 minute'")
    await change(engine, newer, status="retry", next_retry_at="sql:now() - interval '5 minutes'")
    for expected in (older, newer):
        async with engine.begin() as tx:
            [claimed] = await claim(tx, owner="me", limit=1, lease_seconds=60)
            assert claimed.id == expected
            await settle.bury(
                tx,
                owner="me",
                revision="r1",
                failures=[
                    settle.Failure(id=claimed.id, error_class=ErrorClass.PERMANENT, code="x", message="x")
                ],
            )


async def test_housekeeping_does_not_read_a_crowd_of_known_types(engine: AsyncEngine) -> None:
    """Each worker looks for events of unknown types every half minute: it finds them without reading the others."""
    await crowd(engine, 3000)
    async with engine.begin() as tx:
        before = await rows_read(tx)
        assert await settle.refuse_unknown(tx) == set()
        assert await rows_read(tx) - before < 100


async def two_of_one_record(engine: AsyncEngine, key: str, newer: dict[str, object]) -> tuple[UUID, UUID]:
    first = await event(engine, key, age=60)
    second = await event(engine, key, age=30)
    await change(engine, second, **newer)
    return first, second


RETRY = {"status": "retry", "next_retry_at": "sql:now() - interval '1 minute'"}


@pytest.mark.parametrize("newer", [RETRY, {"priority": 1}], ids=["a due retry", "a better priority"])
async def test_a_batch_full_of_what_must_wait_takes_what_it_waits_for(
    engine: AsyncEngine, newer: dict[str, object]
) -> None:
    """What would be chosen first must wait for an older event of its record: then that one is taken.

    Chosen and then dropped, such events would fill every batch: nothing would ever move again.
    """
    pairs = [await two_of_one_record(engine, str(n), newer) for n in range(6)]
    taken: list[UUID] = []
    for _ in range(6):
        async with engine.begin() as tx:
            batch = await claim(tx, owner="me", limit=2, lease_seconds=60)
            await settle.bury(
                tx,
                owner="me",
                revision="r1",
                failures=[
                    settle.Failure(id=each.id, error_class=ErrorClass.PERMANENT, code="x", message="x")
                    for each in batch
                ],
            )
        assert batch, "a claim came back empty while events were due"
        taken += [each.id for each in batch]
    assert sorted(taken) == sorted(id_ for pair in pairs for id_ in pair)
    assert all(taken.index(first) < taken.index(second) for first, second in pairs)
    async with engine.connect() as tx:
        assert (await look.counts(tx))[Status.DEAD_LETTER] == 12


async def test_a_crowd_in_the_hands_of_others_is_passed_over_in_one_walk(engine: AsyncEngine) -> None:
    """Half of a thousand events of one record are in another's hand: the others wait, and cost two reads each."""
    await crowd(engine, 1000)
    async with engine.begin() as theirs:
        batch = in_hand.new_batch()
        held = await lock(theirs, batch=batch, limit=500)
        await in_hand.note(engine, batch=batch, owner="other-1-0123abcd", events=held)
        other = await event(engine, "2")
        async with engine.begin() as tx:
            assert [each.id for each in await by_lock(tx, 500)] == [other]
            assert await rows_read(tx) < 5 * 1000
