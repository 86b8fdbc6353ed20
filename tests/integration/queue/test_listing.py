"""Looking at the queue by hand: what a filter finds, what it never shows, and what it may cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database import clock
from handlers.errors import Refused
from handlers.queue import in_hand, listing
from handlers.queue.as_csv import as_csv
from handlers.queue.event import SYNTHETIC_KEY, EntityType, Status
from handlers.queue.listing import Filter, ListedEvent
from tests.integration.queue.events import claim, complete, dead_letter, event, without_notes


async def find(engine: AsyncEngine, limit: int = 20, **wanted: object) -> list[ListedEvent]:
    """What a filter finds."""
    async with engine.connect() as tx:
        return await listing.find(tx, Filter(**wanted), limit)  # type: ignore[arg-type]


async def keys(engine: AsyncEngine, **wanted: object) -> list[str]:
    """The records of the events that a filter finds."""
    return [each.key for each in await find(engine, **wanted)]


async def test_the_newest_come_first_and_each_part_of_a_filter_narrows(engine: AsyncEngine) -> None:
    """Status, type, error, record and limit, alone and together."""
    await event(engine, "old", age=50)
    await event(engine, "new", entity=EntityType.INVOICE, age=10)
    await dead_letter(engine, "dead", age=30)
    await dead_letter(engine, "odd", age=20, error_code="P0001", error_message="rate 'abc' is 100% no number")
    assert await keys(engine) == ["new", "odd", "dead", "old"]
    assert await keys(engine, limit=2) == ["new", "odd"]
    assert await keys(engine, statuses=(Status.DEAD_LETTER,)) == ["odd", "dead"]
    assert await keys(engine, entities=(EntityType.INVOICE,)) == ["new"]
    assert await keys(engine, key="dead") == ["dead"]
    assert await keys(engine, error="GREENLET") == ["dead"]
    assert await keys(engine, error="p0001") == ["odd"]
    assert await keys(engine, error="rate <value> is <n>% no") == ["odd"]
    assert await keys(engine, error="100%", statuses=(Status.PENDING,)) == []


@pytest.mark.parametrize("error", ["%", "gr_enlet", "\\", "a'; DROP TABLE tds_sync_queue; --", "no such"])
async def test_an_error_is_text_and_no_pattern(engine: AsyncEngine, error: str) -> None:
    """What SQL would read as a wildcard or as a statement is only looked for."""
    await dead_letter(engine, "dead")
    assert await keys(engine, error=error) == []
    assert await keys(engine) == ["dead"]


async def test_a_type_that_this_erp_does_not_have_finds_nothing(engine: AsyncEngine) -> None:
    """An older ERP's enum lacks some types: that is an empty list and no error of the database."""
    await event(engine, "one")
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TYPE tds_entity_type RENAME VALUE 'USER' TO 'PERSON'"))
    assert await keys(engine, entities=(EntityType.USER,)) == []
    assert await keys(engine, entities=(EntityType.USER, EntityType.PRODUCT)) == ["one"]


async def test_a_type_without_a_handler_is_listed_by_the_queues_own_name(engine: AsyncEngine) -> None:
    """A list does not break on what nobody can apply."""
    await event(engine, "one", entity_type="sql:'branch'")
    assert [each.entity for each in await find(engine)] == ["branch"]


async def test_what_a_worker_has_in_hand_is_in_processing(engine: AsyncEngine) -> None:
    """Its row still says pending: a person who looks for what is in processing finds it, and nobody else does."""
    held, free = await event(engine, "held"), await event(engine, "free", age=5)
    async with engine.begin() as tx:
        batch = in_hand.new_batch()
        await in_hand.begin(tx, batch)
        async with engine.begin() as other:
            await other.execute(
                text("INSERT INTO runbook.in_hand (batch, owner, ids, bytes) VALUES (:batch, 'w', :ids, 1)"),
                {"batch": batch, "ids": [held]},
            )
        assert [each.id for each in await find(engine, statuses=(Status.PROCESSING,))] == [held]
        assert [each.id for each in await find(engine, statuses=(Status.PENDING,))] == [free]
        assert {each.key: each.status for each in await find(engine)} == {
            "held": Status.PROCESSING,
            "free": Status.PENDING,
        }


async def test_a_queue_without_our_ledger_is_listed(engine: AsyncEngine) -> None:
    """Before `runbook db upgrade` there are no notes of batches: a look needs none."""
    await without_notes(engine)
    await event(engine, "one")
    assert await keys(engine, statuses=(Status.PENDING,)) == ["one"]


async def test_since_counts_what_came_and_what_was_taken(engine: AsyncEngine) -> None:
    """An old dead letter that was replayed an hour ago belongs to that hour; one that nobody touched does not."""
    await event(engine, "untouched", age=86_400)
    await dead_letter(engine, "long ago", age=86_400, started_at="sql:now() - interval '1 day'")
    replayed = await event(engine, "replayed", age=86_400)
    await claim(engine, ids=[replayed])
    await complete(engine, "a", [replayed])
    await event(engine, "fresh", age=60)
    await event(engine, SYNTHETIC_KEY, age=60)
    async with engine.connect() as tx:
        since = await clock.now(tx) - timedelta(hours=1)
        counts = await listing.counts_since(tx, since)
    assert await keys(engine, since=since) == [SYNTHETIC_KEY, "fresh", "replayed"]
    assert {status: count for status, count in counts.items() if count} == {
        Status.COMPLETED: 1,
        Status.PENDING: 1,
    }
    assert set(counts) == set(Status)


async def test_the_text_of_an_error_is_masked(engine: AsyncEngine) -> None:
    """The database's message repeats the row that it refused: a list must not show a customer's values."""
    secret = "Failing row contains (7, Jane Doe, 0770 123 4567)."
    await dead_letter(engine, "one", error_message=f"NotNullViolation: null in 'email'\nDETAIL: {secret}")
    [found] = await find(engine)
    assert "Jane" not in found.error
    assert "0770" not in found.error
    assert "email" not in found.error
    assert "<row>" in found.error


async def test_dead_letters_are_grouped_by_their_masked_error(engine: AsyncEngine) -> None:
    """Ids in the text make no group of their own; retries are failed events, and no dead letters."""
    await dead_letter(engine, "a", error_message="no customer 'C-17'")
    await dead_letter(engine, "b", error_message="no customer 'C-18'")
    await dead_letter(engine, "c", error_message="boom", error_code=None)
    await event(engine, "d", status="retry", error_message="boom", error_code="40P01")
    async with engine.connect() as tx:
        failed = await listing.failed(tx)
    groups = listing.grouped(failed)
    assert [(group.error, group.error_code, group.count) for group in groups] == [
        ("no customer <value>", "xd2s", 2),
        ("boom", "", 1),
    ]
    assert len(failed) == 4


async def test_a_look_that_takes_too_long_is_ended_and_says_how_to_ask_for_less(engine: AsyncEngine) -> None:
    """A person's look must not hold the database: the server ends it."""
    async with engine.connect() as tx:
        with pytest.raises(Refused, match=r"no answer within 0.05 s: ask for less with --since"):
            async with listing.limited(tx, 0.05):
                await tx.execute(text("SELECT pg_sleep(5)"))


async def test_another_error_of_the_database_is_not_taken_for_a_slow_one(engine: AsyncEngine) -> None:
    """Only the server's own timeout means that less should be asked for."""
    async with engine.connect() as tx:
        with pytest.raises(Exception, match="division by zero"):
            async with listing.limited(tx):
                await tx.execute(text("SELECT 1 / 0"))


def test_a_cell_is_never_a_formula() -> None:
    """A key or an error that begins like a formula is text to a spreadsheet."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    lines = as_csv(("key", "at"), [("=HYPERLINK(1)", at), ("+1", None), ('a "b", c', 2)]).splitlines()
    assert lines == ["key,at", f"'=HYPERLINK(1),{at}", "'+1,", '"a ""b"", c",2']


async def test_an_unknown_record_finds_nothing(engine: AsyncEngine) -> None:
    """No record, no event, no error."""
    assert await keys(engine, key=str(uuid4())) == []
