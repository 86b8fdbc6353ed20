"""What has happened in the queue since a time: everything that the gate is told comes from here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.queue import in_hand, settle
from handlers.queue.changes import Change, changes, day_before
from handlers.queue.claim import lock
from handlers.queue.event import EntityType, ErrorClass, Status
from tests.integration.queue.events import (
    change,
    claim,
    complete,
    event,
    failure,
    missing,
    without_notes,
)

MINUTE = timedelta(minutes=1)


async def seen(engine: AsyncEngine, *open_: UUID, since: timedelta = MINUTE, **words: Any) -> list[Change]:
    """What has changed in the last minute."""
    async with engine.connect() as tx:
        return await changes(tx, since=datetime.now(UTC) - since, open_=open_, **words)


async def one(engine: AsyncEngine, *open_: UUID) -> Change:
    """The only change."""
    (found,) = await seen(engine, *open_)
    return found


async def test_an_event_is_told_from_its_coming_to_its_end(engine: AsyncEngine) -> None:
    """Waiting, in the worker's hands, applied: with the time at which a worker first took it, and what that runs."""
    id_ = await event(engine, "1", age=600)
    waiting = await one(engine)
    assert (waiting.is_taken, waiting.admitted, waiting.is_ended) == (False, None, False)
    await claim(engine, "w", ids=[id_])
    taken = await one(engine)
    assert (taken.is_taken, taken.is_ended) == (True, False)
    await complete(engine, "w", [id_])
    done = await one(engine)
    assert (done.status, done.revision, done.admitted) == (Status.COMPLETED, "r1", taken.admitted)
    assert done.type == EntityType.PRODUCT
    assert done.ended is not None
    assert done.admitted is not None
    assert done.ended >= done.admitted


async def test_what_is_locked_without_a_lease_is_in_hand(engine: AsyncEngine) -> None:
    """Its row says pending until the batch has ended; the note of the batch says who has it since when."""
    await event(engine, "1")
    async with engine.begin() as tx:
        events = await lock(tx, batch=7, limit=9)
        await in_hand.note(engine, batch=7, owner="w", events=events)
    found = await one(engine)
    assert (found.status, found.is_taken) == (Status.PENDING, True)
    assert found.admitted is not None


async def test_without_the_ledgers_table_of_batches_leases_tell(engine: AsyncEngine) -> None:
    """A database with an older ledger."""
    await without_notes(engine)
    id_ = await event(engine, "1")
    await claim(engine, "w", ids=[id_])
    assert (await one(engine)).is_taken


async def test_every_attempt_that_failed_is_told(engine: AsyncEngine) -> None:
    """With its class, its error without values, and when the next one is due; also after the event was applied."""
    id_ = await event(engine, "1", max_retry_attempts=5)
    for number in range(2):
        await claim(engine, "w", ids=[id_])
        async with engine.begin() as tx:
            said = failure(id_, ErrorClass.TRANSIENT, f"boom {number}")
            await settle.retry_later(tx, owner="w", revision="r1", failures=[said])
        found = await one(engine, id_)
        assert found.due is not None
        await change(engine, id_, next_retry_at="sql:now()", locked_by=None)
    assert [(each.hard, each.fingerprint) for each in found.attempts] == [(False, "boom <n>")] * 2
    await claim(engine, "w", ids=[id_])
    await complete(engine, "w", [id_])
    assert len((await one(engine)).attempts) == 2


async def test_a_wait_for_a_parent_is_no_attempt(engine: AsyncEngine) -> None:
    """It has the parent and the time at which it began."""
    id_ = await event(engine, "1")
    await claim(engine, "w", ids=[id_])
    async with engine.begin() as tx:
        await settle.retry_later(tx, owner="w", revision="r1", failures=[missing(id_, "4711")])
    found = await one(engine)
    assert (found.attempts, found.parent) == ((), "4711")
    assert found.waits_since is not None


@pytest.mark.parametrize(
    ("columns", "hard"),
    [
        ({"error_code": "22001"}, True),
        ({"error_code": "23505"}, False),
        ({"error_code": "40P01"}, False),
        ({"error_code": "xd2s"}, False),
        ({"error_code": None}, False),
        ({"error_code": "57014", "processing_result": 'sql:\'{"class": "permanent"}\'::jsonb'}, True),
    ],
    ids=str,
)
async def test_an_error_of_the_erps_own_worker_is_hard_if_its_sqlstate_says_so(
    engine: AsyncEngine, columns: dict[str, Any], hard: bool
) -> None:
    """Ours say the class of each error themselves."""
    await event(engine, "1", status="dead_letter", started_at="sql:now()", error_message="x", **columns)
    found = await one(engine)
    assert found.last is not None
    assert found.last.hard is hard


@pytest.mark.parametrize(
    ("started", "usable"),
    [
        ("sql:clock_timestamp()", True),
        ("sql:now() + interval '3 hours'", False),
        ("sql:now() - interval '3 hours'", False),
        (None, False),
    ],
)
async def test_a_time_that_was_written_without_a_zone_says_nothing(
    engine: AsyncEngine, started: str | None, usable: bool
) -> None:
    """Of the future, or from before the event came."""
    await event(engine, "1", age=20, status="completed", started_at=started)
    assert ((await one(engine)).admitted is not None) is usable


@pytest.mark.parametrize(
    "junk",
    [
        "[1]",
        '"text"',
        "7",
        '{"attempts": 7, "parents": "x", "admitted": "soon", "fingerprint": [], "revision": 3, "class": {}}',
        '{"attempts": [1, {"at": 3}, {"at": "soon"}, {"at": "2026-01-01T00:00:00"}, null]}',
    ],
)
async def test_what_another_program_left_in_the_result_is_read_without_complaint(
    engine: AsyncEngine, junk: str
) -> None:
    """It is the ERP's column too."""
    for number, status in enumerate(("completed", "dead_letter", "retry", "pending")):
        await event(
            engine,
            f"{number}",
            status=status,
            started_at="sql:now()",
            error_message="x",
            processing_result=f"sql:'{junk}'::jsonb",
        )
    assert [each.attempts for each in await seen(engine)] == [()] * len(await seen(engine))
    async with engine.connect() as tx:
        await day_before(tx, datetime.now(UTC) + MINUTE)


async def test_history_and_a_long_backlog_are_not_read(engine: AsyncEngine) -> None:
    """Only what was asked for, the next ones that wait, and what changed since."""
    old = await event(
        engine, "old", age=9000, status="completed", started_at="sql:now() - interval '2 hours'"
    )
    for number in range(5):
        await event(engine, f"{number}", age=3000 - number)
    found = await seen(engine, waiting_max=2)
    assert [each.key for each in found] == ["0", "1"]
    assert {each.key for each in await seen(engine, old, uuid4(), waiting_max=1)} == {"old", "0"}


async def test_an_event_of_a_type_without_a_handler_keeps_its_word(engine: AsyncEngine) -> None:
    """The queue's own name of it."""
    id_ = await event(engine, "1")
    async with engine.begin() as tx:
        await tx.exec_driver_sql("ALTER TYPE tds_entity_type ADD VALUE 'gadget'")
    await change(engine, id_, entity_type="sql:'gadget'::tds_entity_type")
    assert (await one(engine)).type == "gadget"


async def test_the_day_before_counts_a_record_once_in_ten_minutes(engine: AsyncEngine) -> None:
    """What is open, what is older than a day, and what came after says nothing."""
    dead = {"status": "dead_letter", "error_message": "no unit 'kg' 7", "started_at": "sql:now()"}
    for age in (3000, 3001, 3002, 900):
        await event(engine, "1", age=age, **dead)
    await event(engine, "2", age=3000, status="completed")
    await event(engine, "3", age=3000)
    await event(engine, "4", age=90_000, **dead)
    async with engine.connect() as tx:
        found = await day_before(tx, datetime.now(UTC) - 10 * MINUTE)
    product = found.types["Product"]
    assert 3 <= product.units <= 4, "a boundary of ten minutes may lie between the first three"
    assert product.fingerprints.keys() == {"no unit <value> <n>"}
    assert found.knows("Product", "no unit <value> <n>")
