"""Rows that no worker of ours writes: a look reads them, and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database import clock
from handlers.gate.values import Finding
from handlers.queue.changes import day_before
from handlers.queue.event import EntityType, Status
from tests.integration.phases.looks import look, looked_at
from tests.integration.queue.events import change, event

RESULTS = (
    "[]",
    '"text"',
    "7",
    "null",
    '{"admitted": "2026-02-31T00:00:00+00:00"}',
    '{"admitted": "2026-99-99T99:99:99+00:00"}',
    '{"admitted": "0001-01-01T00:00:00+00:00"}',
    '{"admitted": {"a": 1}, "attempts": {"at": 1}, "parents": {"a": 1}, "class": 7, "fingerprint": 8}',
    '{"attempts": [{"at": "2026-02-03T00:00:00+00:00", "revision": 7, "class": [1], "code": {"a": 1}}]}',
    '{"attempts": [{"at": "0001-01-01T00:00:00+14:00"}, null, 7, {"at": "now"}], "revision": 9}',
    '{"parents": [null, {"a": 1}], "attempts": [null, 1e400]}',
)


@pytest.mark.parametrize("result", RESULTS)
async def test_a_result_of_any_shape_is_read(
    tmp_path: Path, database_url: str, engine: AsyncEngine, result: str
) -> None:
    """In every status, with an error text of a megabyte; for the day before as well."""
    async with looked_at(tmp_path, database_url, since=5) as (core, run, looker):
        for status in Status:
            id_ = await event(engine, f"{status} \U0001f600 {'k' * 90}")
            values = {"id": id_, "status": status, "result": result, "error": "\U0001f600" * 1_000_000}
            async with engine.begin() as tx:
                await tx.execute(
                    text(
                        "UPDATE tds_sync_queue SET status = CAST(:status AS tds_event_status), started_at = now(),"
                        " completed_at = now(), error_message = :error, error_code = 'missing_parent',"
                        " processing_result = CAST(CAST(:result AS text) AS jsonb) WHERE id = :id"
                    ),
                    values,
                )
        judgement = await look(core, run, looker)
        assert judgement.sentence.startswith("1 of 5 records completed")
        async with core.database.connect() as tx:
            found = await day_before(tx, await clock.now(tx))
        assert found.units == 3


async def test_a_type_without_a_handler_stops_no_look(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Its events wait until a worker buries them, also while the gate holds single types."""
    async with engine.begin() as tx:
        await tx.exec_driver_sql("ALTER TYPE tds_entity_type ADD VALUE IF NOT EXISTS 'WAREHOUSE'")
    async with looked_at(tmp_path, database_url, since=5) as (core, run, looker):
        await change(engine, await event(engine, "w1"), entity_type="sql:'WAREHOUSE'")
        looker.gate.hold(["Product", "WAREHOUSE"], 0.0)
        assert (await look(core, run, looker)).finding is Finding.NO_DATA


async def test_the_priority_of_an_event_is_told(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """One of a worse priority waits rightly while others are taken."""
    async with looked_at(tmp_path, database_url, since=5) as (core, run, looker):
        await event(engine, "usual", priority=5)
        await event(engine, "bulk", priority=10, entity=EntityType.INVOICE)
        await look(core, run, looker)
        told = [item.priority for item in looker.gate.traffic.items.values()]
        assert sorted(told) == [5, 10]
        assert looker.gate.holds.queued() == ["Product", "Invoice"]


async def test_a_retry_that_nobody_knows_who_took_is_no_evidence(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """The ERP's own worker took it before the switch and noted no time. It holds back what is newer of its record."""
    async with looked_at(tmp_path, database_url, since=600) as (core, run, looker):
        ids = [await event(engine, f"{number}", age=3600, status="retry") for number in range(6)]
        for number, id_ in enumerate(ids):
            await change(engine, id_, next_retry_at="sql:now() + interval '1 hour'", error_code="X")
            await event(engine, f"{number}", age=500)
        assert (await look(core, run, looker)).finding is Finding.NO_DATA
        for id_ in ids:
            await change(engine, id_, status="dead_letter", started_at="sql:now()")
        assert (await look(core, run, looker)).finding is Finding.NO_DATA
        assert len(looker.gate.holds.queued()) == 6
