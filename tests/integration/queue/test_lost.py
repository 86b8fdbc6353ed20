"""Batches that lost their lease: smaller and smaller pieces, until the event that kills its workers is alone."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.entities.apply import apply_events
from handlers.queue import settle
from handlers.queue.event import ErrorClass, Status
from handlers.queue.redrive import redrive
from handlers.worker.worker import new_owner
from tests.integration.queue.events import change, claim, complete, event, failure, row
from tests.integration.worker.steps import statuses, worker

OURS = new_owner("w")
"""A worker of ours: its name tells it from the ERP's own."""


async def killed(engine: AsyncEngine, ids: list[UUID]) -> dict[UUID, Status]:
    """The worker that holds *ids* is gone, and its lease has run out."""
    for id_ in ids:
        await change(engine, id_, lock_expires_at="sql:now()")
    async with engine.begin() as tx:
        return await settle.expire_leases(tx)


async def test_only_the_event_that_kills_its_workers_is_buried(engine: AsyncEngine) -> None:
    """One of forty: the others are applied, none of them loses an attempt, and none is tried alone without need."""
    ids = [await event(engine, str(n), age=100 - n) for n in range(40)]
    culprit, sizes = ids[17], []
    for _ in range(60):
        batch = [each.id for each in await claim(engine, OURS)]
        if not batch:
            break
        if culprit in batch:
            sizes.append(len(batch))
            await killed(engine, batch)
        else:
            assert await complete(engine, OURS, batch) == set(batch)
    assert sizes == [40, 4, *[1] * settle.LEASES_LOST_MAX]
    now = await row(engine, culprit)
    assert (now["status"], now["error_code"], now["attempt_count"]) == ("dead_letter", "lease_expired", 0)
    assert "for the 5th time with no other event in the batch" in now["error_message"]
    assert set(await statuses(engine, [id_ for id_ in ids if id_ != culprit])) == {Status.COMPLETED}


async def test_an_attempt_that_the_erps_own_worker_lost_counts(engine: AsyncEngine) -> None:
    """It counts only what fails. An event that it loses three times is a dead letter, and is not taken for ever."""
    id_ = await event(engine, "1")
    theirs = {"status": "processing", "locked_by": "worker-1", "started_at": "sql:now()"}
    for attempt in (1, 2):
        await change(engine, id_, **theirs)
        assert await killed(engine, [id_]) == {id_: Status.RETRY}
        assert (await row(engine, id_))["attempt_count"] == attempt
    await change(engine, id_, **theirs)
    assert await killed(engine, [id_]) == {id_: Status.DEAD_LETTER}
    now = await row(engine, id_)
    assert (now["attempt_count"], now["locked_by"], now["next_retry_at"]) == (3, None, None)
    assert now["error_message"].endswith("ran out before it was finished, in attempt 3 of 3")


async def test_what_is_in_processing_without_a_lease_comes_back_after_an_hour(engine: AsyncEngine) -> None:
    """Whether the name or the time of the lease is missing; what was begun a moment ago stays."""
    now, hour_ago = {"started_at": "sql:now()"}, {"started_at": "sql:now() - interval '61 minutes'"}
    nobody = {"status": "processing"}
    ids = [
        await event(engine, "1", **nobody, **hour_ago),
        await event(engine, "2", **nobody, locked_by="worker-1", **hour_ago),
        await event(engine, "3", **nobody, age=3700),
    ]
    fresh = [
        await event(engine, "4", **nobody, **now),
        await event(engine, "5", **nobody, locked_by="worker-1", **now),
    ]
    async with engine.begin() as tx:
        assert set(await settle.expire_leases(tx)) == set(ids)
    assert await statuses(engine, fresh) == [Status.PROCESSING] * 2


async def test_lost_leases_have_a_budget_of_their_own(engine: AsyncEngine) -> None:
    """Two kills and two errors make no dead letter of an event that may have three attempts."""
    (id_,) = [await event(engine, "1")]
    for _ in range(2):
        await claim(engine, OURS)
        assert await killed(engine, [id_]) == {id_: Status.RETRY}
    for attempt in (1, 2):
        await claim(engine, OURS)
        assert (await row(engine, id_))["attempt_count"] == attempt
        async with engine.begin() as tx:
            told = await settle.retry_later(tx, owner=OURS, revision="r", failures=[failure(id_)])
        assert told == {id_: Status.RETRY}
        await change(engine, id_, next_retry_at="sql:now()")


async def test_a_piece_is_not_mixed_with_other_events(engine: AsyncEngine) -> None:
    """What is due else is taken first by `claim`; a worker takes the pieces first, after its maintenance."""
    lost = [await event(engine, str(n), age=100 - n) for n in range(3)]
    await claim(engine, OURS)
    await killed(engine, lost)
    fresh = [await event(engine, str(n)) for n in range(10, 13)]
    newer = await event(engine, "0")
    assert [each.id for each in await claim(engine, OURS)] == fresh
    taken = [[each.id for each in await claim(engine, OURS)] for _ in range(4)]
    assert taken == [[lost[0]], [lost[1]], [lost[2]], []]
    await complete(engine, OURS, lost)
    assert [each.id for each in await claim(engine, OURS)] == [newer]


async def test_what_is_released_stays_in_its_piece(engine: AsyncEngine) -> None:
    """A worker that is stopped gives it back: it is still a suspect, and still found. A redrive clears it."""
    ids = [await event(engine, str(n), age=100 - n) for n in range(2)]
    await claim(engine, OURS)
    await killed(engine, ids)
    assert [each.id for each in await claim(engine, OURS)] == ids[:1]
    async with engine.begin() as tx:
        assert await settle.release(tx, owner=OURS) == {ids[0]}
    assert (await row(engine, ids[0]))["locked_by"] == "lost lease"
    assert [each.id for each in await claim(engine, OURS, ids=ids)] == ids[:1]
    await change(engine, ids[0], status="dead_letter")
    async with engine.begin() as tx:
        await redrive(tx, ids[:1])
    assert [each.id for each in await claim(engine, OURS)] == ids[:1]


async def test_a_wait_goes_on_after_a_lost_lease(engine: AsyncEngine) -> None:
    """What the result says of waiting and of lost leases does not overwrite each other."""
    id_ = await event(engine, "1")
    missing = settle.Failure(
        id=id_, error_class=ErrorClass.MISSING_PARENT, code="missing_parent", message="x"
    )
    await claim(engine, OURS)
    async with engine.begin() as tx:
        await settle.retry_later(tx, owner=OURS, revision="r", failures=[missing])
    await change(engine, id_, next_retry_at="sql:now()")
    await claim(engine, OURS)
    await killed(engine, [id_])
    result = (await row(engine, id_))["processing_result"]
    assert (result["waits"], result["lost"]["alone"]) == (1, 1)


async def test_a_batch_is_bounded_by_bytes(engine: AsyncEngine) -> None:
    """Large payloads make small batches, in order; one that is larger than a batch is taken alone."""
    small, large = "x" * 1000, "sql:jsonb_build_object('n', repeat('x', 1200000))"
    ids = []
    for n in range(8):
        payload = large if n in {2, 3, 4, 6} else f"sql:jsonb_build_object('n', '{small}')"
        ids.append(await event(engine, str(n), age=100 - n, validated_payload=payload))
    await change(engine, ids[6], validated_payload="sql:jsonb_build_object('n', repeat('x', 5000000))")
    taken = [[ids.index(each.id) for each in await claim(engine, OURS)] for _ in range(5)]
    assert taken == [[0, 1, 2, 3], [4, 5], [6], [7], []]


async def test_a_payload_that_is_too_large_is_refused_without_being_read_whole(engine: AsyncEngine) -> None:
    """The handlers refuse it by its size: the worker is sent only as much as shows that."""
    id_ = await event(engine, "1", validated_payload="sql:jsonb_build_object('n', repeat('x', 9000000))")
    (claimed,) = await claim(engine, OURS)
    assert len(claimed.payload) == 8 * 1024 * 1024 + 1
    async with engine.begin() as tx:
        await settle.release(tx, owner=OURS)
    await worker(engine, apply_events).step()
    now = await row(engine, id_)
    assert (now["status"], now["error_message"]) == ("dead_letter", "(body): is larger than 8388608 bytes")
