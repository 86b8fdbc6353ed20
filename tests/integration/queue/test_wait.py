"""How long an event waits for a parent: as long as an event of it is open, and else for a bounded time."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.queue import limits, settle, wake
from handlers.queue.event import EntityType, ErrorClass, Status
from handlers.worker.worker import Worker
from tests.integration.queue.events import change, claim, event, missing, row, wait_out
from tests.integration.worker.steps import make_effect, statuses, worker

E = EntityType


async def wait_for(engine: AsyncEngine, id_: UUID, *parents: str) -> Status:
    """Let a worker take the event, and find that *parents* are missing."""
    await claim(engine, "me", ids=[id_])
    async with engine.begin() as tx:
        failures = [missing(id_, *parents)]
        return (await settle.retry_later(tx, owner="me", revision="r1", failures=failures))[id_]


async def again(engine: AsyncEngine, id_: UUID, *parents: str, seconds: float = 3600) -> Status:
    """The same *seconds* later."""
    await wait_out(engine, id_, seconds)
    return await wait_for(engine, id_, *parents)


async def test_a_wait_costs_no_attempt(engine: AsyncEngine) -> None:
    """Attempts are for errors; whatever other tries it had, an event waits as long as any."""
    child = await event(engine, "1", entity=E.INVOICE, attempt_count=2)
    for _ in range(5):
        assert await again_soon(engine, child) is Status.RETRY
    now = await row(engine, child)
    assert (now["attempt_count"], now["processing_result"]["waits"]) == (2, 5)
    assert await again(engine, child, "5") is Status.DEAD_LETTER


async def again_soon(engine: AsyncEngine, id_: UUID) -> Status:
    """It waits for the same parent again, a moment later."""
    await change(engine, id_, next_retry_at="sql:now()")
    return await wait_for(engine, id_, "5")


@pytest.mark.parametrize("open_state", [
    {},
    {"status": "processing", "locked_by": "other", "lock_expires_at": "sql:now() + interval '1 h'"},
    {"status": "retry", "next_retry_at": "sql:now() + interval '1 h'", "error_code": "40P01"},
    {"status": "retry", "next_retry_at": "sql:now() + interval '1 h'", "error_code": "missing_parent"},
])  # fmt: skip
async def test_an_open_event_of_a_parent_keeps_its_children_alive(
    engine: AsyncEngine, open_state: dict[str, str]
) -> None:
    """However long it takes: the time begins when the last open event of a parent has settled."""
    child = await event(engine, "1", entity=E.INVOICE)
    parent = await event(engine, "5", entity=E.CUSTOMER, **open_state)
    assert await wait_for(engine, child, "5", "6") is Status.RETRY
    for _ in range(3):
        assert await again(engine, child, "5", "6") is Status.RETRY
    await change(engine, parent, status="dead_letter")
    assert await again(engine, child, "5", "6", seconds=0) is Status.RETRY
    assert await again(engine, child, "5", "6") is Status.DEAD_LETTER


async def test_events_that_wait_for_each_other_are_no_hope(engine: AsyncEngine) -> None:
    """Two parts of a contact that never comes: each is open, and waits for the same record."""
    parts = [await event(engine, "5", entity=E.CUSTOMER, age=9 - n) for n in range(2)]
    for part in parts:
        assert await wait_for(engine, part, "5") is Status.RETRY
    assert [await again(engine, part, "5") for part in parts] == [Status.DEAD_LETTER] * 2


async def test_the_time_begins_anew_for_another_parent(engine: AsyncEngine) -> None:
    """The first has come, and now it waits for the second."""
    child = await event(engine, "1", entity=E.INVOICE)
    await wait_for(engine, child, "5", "6")
    assert await again(engine, child, "6") is Status.RETRY
    assert await again(engine, child, "6") is Status.DEAD_LETTER


@pytest.mark.parametrize("left", ["[]", '"x"', '{"waits": "many", "waiting_since": "long", "parents": 7}'])
async def test_what_another_worker_left_in_the_result_is_no_wait(engine: AsyncEngine, left: str) -> None:
    """The ERP's own workers may leave anything there."""
    child = await event(engine, "1", entity=E.INVOICE)
    await change(engine, child, processing_result=f"sql:CAST('{left}' AS jsonb)")
    assert await wait_for(engine, child, "5") is Status.RETRY
    assert (await row(engine, child))["processing_result"]["waits"] == 1


async def test_a_dead_letter_of_waiting_is_tried_when_its_parent_comes(engine: AsyncEngine) -> None:
    """At once by the worker that applies the parent, or by maintenance; other dead letters stay."""
    await make_effect(engine)
    child, other = [await event(engine, key, entity=E.INVOICE) for key in "12"]
    for id_ in (child, other):
        await wait_for(engine, id_, "5")
        assert await again(engine, id_, "5") is Status.DEAD_LETTER
    await change(engine, other, error_code="refused")
    parent = await event(engine, "5", entity=E.CUSTOMER)
    await worker(engine).step()
    assert await statuses(engine, [parent, child, other]) == [
        Status.COMPLETED,
        Status.RETRY,
        Status.DEAD_LETTER,
    ]
    await wait_for(engine, child, "5")
    await change(engine, child, status="dead_letter", started_at="sql:now() - interval '1 minute'")
    async with engine.begin() as tx:
        assert await wake.wake_arrived(tx) == {child}
    assert (await row(engine, child))["status"] == "retry"


async def test_what_waits_holds_no_newer_event_of_its_record(engine: AsyncEngine) -> None:
    """The newer one may be what it waits for; an event that is retried for another reason holds it."""
    older = await event(engine, "1", entity=E.INVOICE, age=10)
    newer = await event(engine, "1", entity=E.INVOICE)
    await claim(engine, "me", limit=1)
    assert await wait_for_claimed(engine, older) is Status.RETRY
    assert [each.id for each in await claim(engine, "b")] == [newer]
    await change(engine, newer, status="pending", lock_expires_at="sql:now()")
    await change(engine, older, error_code="40P01")
    assert await claim(engine, "b") == []


async def wait_for_claimed(engine: AsyncEngine, id_: UUID) -> Status:
    missing = settle.Failure(
        id=id_, error_class=ErrorClass.MISSING_PARENT, code="missing_parent", message="x", parents=("5",)
    )
    async with engine.begin() as tx:
        return (await settle.retry_later(tx, owner="me", revision="r1", failures=[missing]))[id_]


async def test_children_of_a_throttled_kind_outlive_the_limit(engine: AsyncEngine) -> None:
    """A limit on customers of an hour makes no dead letter of an invoice, and it is applied when they come."""
    await limits.limit(engine, E.CUSTOMER, per_ten_seconds=0, seconds=3600, by="test", reason="suspected")
    parent = await event(engine, "5", entity=E.CUSTOMER, age=10)
    payload = '{"invoice_id": "30", "customer_id": "5", "total": 6}'
    child = await event(engine, "30", entity=E.INVOICE, validated_payload=f"sql:CAST('{payload}' AS jsonb)")
    contact = '{"contact_id": "5", "contact_type": "customer"}'
    await change(engine, parent, validated_payload=f"sql:CAST('{contact}' AS jsonb)")
    one = Worker(engine, owner="me", revision="r1")
    await one.step()
    for _ in range(4):
        await wait_out(engine, child)
        assert await one.step() == 1
    assert await statuses(engine, [parent, child]) == [Status.PENDING, Status.RETRY]
    await limits.lift_all(engine)
    assert [await one.step() for _ in range(3)] == [1, 1, 0]
    assert await statuses(engine, [parent, child]) == [Status.COMPLETED, Status.COMPLETED]
