"""The synthetic event must be one that any worker of the queue can apply, not only ours."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database import clock
from handlers.entities.compare import expected
from handlers.entities.registry import HANDLERS
from handlers.phases import synthetic
from handlers.queue import look
from handlers.queue.changes import changes, day_before
from handlers.queue.event import EntityType
from handlers.release import left_behind
from tests.integration.queue.events import change, event
from tests.integration.release.steps import deploying


async def test_a_synthetic_event_lies_flat_in_the_queue(engine: AsyncEngine) -> None:
    """An ERP's own handlers read item_id at the top of the payload, and take a product without is_active for active."""
    async with engine.begin() as tx:
        event_id = await synthetic.insert(tx, "2026-11-25.1")
        payload = (
            await tx.execute(
                text("SELECT validated_payload FROM tds_sync_queue WHERE id = :id"), {"id": event_id}
            )
        ).scalar_one()
    assert payload["item_id"] == synthetic.KEY
    assert payload["is_active"] is False


async def test_our_core_takes_it_as_well(engine: AsyncEngine) -> None:
    """The same flat form, read by our own mapping: one inactive product."""
    async with engine.begin() as tx:
        await synthetic.insert(tx, "2026-11-25.1")
        stored = (
            await tx.execute(text("SELECT CAST(validated_payload AS text) FROM tds_sync_queue"))
        ).scalar_one()
    row = expected(HANDLERS[EntityType.PRODUCT], json.loads(stored, parse_float=Decimal))
    assert (row["zoho_item_id"], row["is_active"]) == (synthetic.KEY, "false")


async def sent(engine: AsyncEngine, release_id: str, **columns: object) -> list[UUID]:
    """Both test events of a release, in a state."""
    async with engine.begin() as tx:
        ids = [await synthetic.insert(tx, release_id), await synthetic.remove(tx, release_id)]
    for id_ in ids:
        await change(engine, id_, **columns)
    return ids


async def left(engine: AsyncEngine) -> list[tuple[str, str]]:
    """What is in the queue, and that each event has its row of the inbox and no other has."""
    async with engine.begin() as tx:
        rows = await tx.execute(
            text(
                "SELECT q.source_entity_id, q.operation_type::text FROM tds_sync_queue q"
                " FULL JOIN tds_inbox_events i ON i.id = q.inbox_event_id ORDER BY 1, 2"
            )
        )
        return [(row[0], row[1]) for row in rows]


async def test_nobody_takes_a_test_event_for_the_customers(engine: AsyncEngine) -> None:
    """It is no traffic of the gate, no dead letter of a plan, no part of the day before, and not left behind."""
    release = await deploying(engine)
    dead = {"status": "dead_letter", "started_at": "sql:now()", "error_message": "boom"}
    await sent(engine, release.id, **dead)
    async with engine.connect() as tx:
        at = await clock.now(tx)
        assert await look.dead_letters(tx) == []
        assert await changes(tx, since=at - timedelta(minutes=5), open_=[]) == []
        assert (await day_before(tx, at)).units == 0
    assert await left_behind.kinds(engine, release) == ()
    assert await left_behind.ids(engine, release.environment, release.id) == frozenset()


@pytest.mark.parametrize("status", ["completed", "dead_letter", "failed"])
async def test_test_events_are_taken_away_at_the_end(engine: AsyncEngine, status: str) -> None:
    """Those of this release, with their rows of the inbox, and no other event."""
    await sent(engine, "2026-11-25.1", status=status)
    await sent(engine, "2026-11-25.2", status=status)
    await event(engine, "461", status=status)
    assert await synthetic.withdraw(engine, "2026-11-25.1") == 2
    assert len(await left(engine)) == 3
    assert await synthetic.withdraw(engine, "2026-11-25.1") == 0


async def test_a_delete_that_waits_for_a_worker_stays(engine: AsyncEngine) -> None:
    """It still takes the product away. An update that nobody has taken would only bring it back."""
    await sent(engine, "2026-11-25.1")
    await synthetic.withdraw(engine, "2026-11-25.1")
    assert await left(engine) == [(synthetic.KEY, "delete")]


async def test_an_event_that_a_worker_has_stays(engine: AsyncEngine) -> None:
    """Nothing waits for it, and nothing is taken from under a worker."""
    ids = await sent(engine, "2026-11-25.1")
    async with engine.begin() as tx:
        await tx.execute(text("SELECT FROM tds_sync_queue WHERE id = :id FOR UPDATE"), {"id": ids[0]})
        assert await synthetic.withdraw(engine, "2026-11-25.1") == 0


async def test_events_that_may_not_be_deleted_stay_and_fail_nothing(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Because the ERP's own log points to one: both stay, and the log says why."""
    [first, _] = await sent(engine, "2026-11-25.1", status="completed")
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO tds_sync_logs (id, sync_queue_id, entity_type, source_entity_id, operation_type,"
                " operation_status, attempt_number) VALUES (gen_random_uuid(), :id, 'product', 'x', 'update',"
                " 'completed', 1)"
            ),
            {"id": first},
        )
    assert await synthetic.withdraw(engine, "2026-11-25.1") == 0
    assert len(await left(engine)) == 2
    assert "stay in the queue: " in caplog.text
