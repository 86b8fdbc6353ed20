"""The connections to the database by state, as a user sees them that may not see those of others."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.connections import DatabaseConnections, connections
from tests.conftest import engine_for


async def test_connections_are_counted_by_their_state(engine: AsyncEngine, database_url: str) -> None:
    """One that forgot its transaction is told from one that only waits."""
    before = await connections(engine)
    idle, forgotten = [await asyncpg.connect(database_url) for _ in range(2)]
    try:
        await forgotten.execute("BEGIN")
        found = await connections(engine)
    finally:
        await asyncio.gather(idle.close(), forgotten.close())
    grown = {state: found.by_state.get(state, 0) - before.by_state.get(state, 0) for state in found.by_state}
    assert grown["idle in transaction"] == 1
    assert grown["idle"] >= 1
    assert found.by_state["active"] >= 1
    assert found.used == sum(found.by_state.values())
    assert found.used < found.maximum
    assert DatabaseConnections.from_json(found.as_json()) == found


async def test_connections_that_we_may_not_see_are_counted_all_the_same(
    engine: AsyncEngine, database_url: str
) -> None:
    """A user without pg_monitor sees no state of others, but a server that is full is full."""
    name = f"poor_{uuid.uuid4().hex[:8]}"
    owner = await asyncpg.connect(database_url)
    try:
        await owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        url = make_url(database_url).set(username=name, password="x").render_as_string(hide_password=False)
        poor = engine_for(url)
        found = await connections(poor)
        await poor.dispose()
        everything = await connections(engine)
    finally:
        await owner.execute(f"DROP ROLE {name}")
        await owner.close()
    assert found.by_state["not visible"] >= 1
    assert found.by_state["active"] == 1
    assert abs(found.used - everything.used) <= 2
