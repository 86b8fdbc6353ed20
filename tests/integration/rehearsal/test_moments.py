"""The moments of a release are seen from outside, also after its database could not be reached."""

from __future__ import annotations

import asyncio
import uuid

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from rehearsal.faults.fault import Moment
from rehearsal.faults.moments import Moments
from rehearsal.postgres import Postgres
from tests.conftest import engine_for

RELEASE = "2026-01-01.1"


async def enter_watch(engine: AsyncEngine) -> None:
    """Record a release that has entered its watch."""
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO runbook.release"
                " (id, environment, from_revision, to_revision, requested_by, plan, plan_hash)"
                " VALUES (:id, 'test', 'a', 'b', 'test', '{}', '')"
            ),
            {"id": RELEASE},
        )
        await tx.execute(
            text("INSERT INTO runbook.phase_record (release_id, phase) VALUES (:id, 'watching')"),
            {"id": RELEASE},
        )


async def test_a_moment_is_seen_after_a_connection_was_refused_by_the_server(
    postgres: Postgres, adopted_template: str
) -> None:
    """The server answers, and has no such database yet: an error that asyncpg raises while it connects."""
    name = f"late_{uuid.uuid4().hex[:8]}"
    engine = engine_for(postgres.url(name))
    refused = asyncio.Event()
    event.listen(engine.sync_engine, "do_connect", lambda *_: refused.set())
    moments = Moments(engine, RELEASE)
    watching = asyncio.create_task(moments.watch())
    reached = asyncio.create_task(moments.reached(Moment(name="watching")))
    try:
        async with asyncio.timeout(20):
            for _ in range(3):
                refused.clear()
                await refused.wait()
            await postgres.create_database(name, template=adopted_template)
            await enter_watch(engine)
            assert (await reached).host is None
        assert not watching.done()
    finally:
        for task in (watching, reached):
            task.cancel()
        await asyncio.wait({watching, reached})
        await engine.dispose()
        await postgres.drop_database(name)
