"""What `runbook doctor` finds odd, and that it finds nothing odd where nothing is."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.erp import doctor
from handlers.worker.worker import Worker, new_owner
from tests.integration.queue.events import dead_letter, event

OLD: dict[str, Any] = {"status": "completed", "completed_at": "sql:clock_timestamp()"}


async def odd(engine: AsyncEngine, name: str) -> list[str]:
    return [each.sentence for each in await doctor.examine(engine) if each.name == name]


async def ours_settles(engine: AsyncEngine, key: str) -> None:
    await event(engine, key)
    await Worker(engine, owner=new_owner("test"), revision="r1").step()


async def test_old_workers_beside_ours_are_told(engine: AsyncEngine) -> None:
    """Both settle what comes in: the finding says how many, and what is not safe."""
    await ours_settles(engine, "1")
    await event(engine, "2", **OLD)
    await dead_letter(engine, "3")
    (said,) = await odd(engine, "side by side")
    assert said.startswith("2 events of the last day were settled by other workers")
    assert "1 by ours" in said
    assert "can overwrite a newer row" in said


async def test_old_workers_alone_or_stopped_are_not_odd(engine: AsyncEngine) -> None:
    """An ERP with workers of its own is as it should be, and so is one whose workers ours have followed."""
    await event(engine, "1", **OLD)
    assert await odd(engine, "side by side") == []
    await ours_settles(engine, "2")
    assert await odd(engine, "side by side") == []


async def test_what_our_own_housekeeping_buried_is_nobody_elses(engine: AsyncEngine) -> None:
    """An event of an unknown kind or one that lost its worker names no worker, and is ours all the same."""
    await ours_settles(engine, "1")
    await dead_letter(engine, "2", error_code="unknown_type")
    await dead_letter(engine, "3", error_code="lease_expired")
    assert await odd(engine, "side by side") == []


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "completed", "completed_at": "sql:now() - interval '3 hours'"},
        {"locked_by": "worker-1", "lock_expires_at": "sql:now() - interval '3 hours'"},
        {"locked_by": "worker-1", "lock_expires_at": "sql:now() + interval '4 hours'"},
    ],
)
async def test_times_without_a_zone_are_told(engine: AsyncEngine, columns: dict[str, Any]) -> None:
    """Leases that are over before they begin, or for hours: the old workers' clock is not in UTC."""
    await event(engine, "1", **columns)
    (said,) = await odd(engine, "clock")
    assert "TZ=UTC" in said


async def test_an_ordinary_lease_is_in_time(engine: AsyncEngine) -> None:
    """Five minutes from now, or just over, is what an old worker in UTC writes."""
    await event(engine, "1", locked_by="worker-1", lock_expires_at="sql:now() + interval '5 minutes'")
    await event(engine, "2", locked_by="worker-1", lock_expires_at="sql:now() - interval '5 seconds'")
    await event(engine, "3", **OLD)
    assert await odd(engine, "clock") == []


async def test_lost_events_and_covered_indexes_are_told(engine: AsyncEngine) -> None:
    """In processing without a lease, and an index that is the beginning of another."""
    await event(engine, "1", status="processing")
    (stuck,) = await odd(engine, "stuck")
    assert stuck.startswith("1 events are in processing")
    covered = await odd(engine, "index")
    assert {each.split()[0] for each in covered} == {
        "ix_tds_sync_queue_status",
        "ix_tds_sync_queue_entity_type",
        "idx_tds_queue_next_retry",
    }
    async with engine.begin() as tx:
        await tx.execute(text("DROP SCHEMA runbook CASCADE"))
    assert len(await odd(engine, "ledger")) == 1
