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


async def problems(engine: AsyncEngine, name: str) -> list[str]:
    return [problem.sentence for problem in await doctor.examine(engine) if problem.name == name]


async def ours_settles(engine: AsyncEngine, key: str) -> None:
    await event(engine, key)
    await Worker(engine, owner=new_owner("test"), revision="r1").step()


async def test_old_workers_beside_ours_are_reported(engine: AsyncEngine) -> None:
    """Both settle events: the sentence has the numbers and the risk."""
    await ours_settles(engine, "1")
    await event(engine, "2", **OLD)
    await dead_letter(engine, "3")
    (sentence,) = await problems(engine, "side by side")
    assert sentence.startswith("2 events of the last day were settled by other workers")
    assert "1 by ours" in sentence
    assert "can overwrite a newer row" in sentence


async def test_old_workers_alone_or_stopped_are_no_problem(engine: AsyncEngine) -> None:
    """An ERP with only its own workers is no problem, nor is one whose old workers have stopped."""
    await event(engine, "1", **OLD)
    assert await problems(engine, "side by side") == []
    await ours_settles(engine, "2")
    assert await problems(engine, "side by side") == []


async def test_what_our_own_maintenance_buried_counts_as_ours(engine: AsyncEngine) -> None:
    """An event of an unknown kind or one that lost its worker names no worker, and counts as ours."""
    await ours_settles(engine, "1")
    await dead_letter(engine, "2", error_code="unknown_type")
    await dead_letter(engine, "3", error_code="lease_expired")
    assert await problems(engine, "side by side") == []


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "completed", "completed_at": "sql:now() - interval '3 hours'"},
        {"locked_by": "worker-1", "lock_expires_at": "sql:now() - interval '3 hours'"},
        {"locked_by": "worker-1", "lock_expires_at": "sql:now() + interval '4 hours'"},
    ],
)
async def test_times_without_a_zone_are_reported(engine: AsyncEngine, columns: dict[str, Any]) -> None:
    """Leases that expire before they begin, or last for hours: the old workers write local times."""
    await event(engine, "1", **columns)
    (sentence,) = await problems(engine, "clock")
    assert "TZ=UTC" in sentence


async def test_an_ordinary_lease_is_no_problem(engine: AsyncEngine) -> None:
    """An old worker in UTC writes five minutes from now; a lease may also have expired just now."""
    await event(engine, "1", locked_by="worker-1", lock_expires_at="sql:now() + interval '5 minutes'")
    await event(engine, "2", locked_by="worker-1", lock_expires_at="sql:now() - interval '5 seconds'")
    await event(engine, "3", **OLD)
    assert await problems(engine, "clock") == []


async def test_lost_events_and_covered_indexes_are_reported(engine: AsyncEngine) -> None:
    """In processing without a lease, and an index that is the beginning of another."""
    await event(engine, "1", status="processing")
    (stuck,) = await problems(engine, "stuck")
    assert stuck.startswith("1 events are in processing")
    covered = await problems(engine, "index")
    assert {sentence.split()[0] for sentence in covered} == {
        "ix_tds_sync_queue_status",
        "ix_tds_sync_queue_entity_type",
        "idx_tds_queue_next_retry",
    }
    async with engine.begin() as tx:
        await tx.execute(text("DROP SCHEMA runbook CASCADE"))
    assert len(await problems(engine, "ledger")) == 1


async def test_an_index_that_a_claim_needs_is_named(engine: AsyncEngine) -> None:
    """Where our workers claim: without the index of `db adopt` a burst makes each claim slow."""
    assert [sentence for sentence in await problems(engine, "index") if "missing" in sentence] == []
    async with engine.begin() as tx:
        await tx.execute(text("DROP INDEX ix_tds_sync_queue_retries"))
    assert [sentence for sentence in await problems(engine, "index") if "missing" in sentence] == []
    async with engine.begin() as tx:
        await tx.execute(
            text("INSERT INTO runbook.worker (owner, host, pid, revision) VALUES ('w', 'h', 1, 'r')")
        )
    (sentence,) = [sentence for sentence in await problems(engine, "index") if "missing" in sentence]
    assert sentence.startswith("ix_tds_sync_queue_retries is missing: after a burst")
