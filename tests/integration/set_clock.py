"""A database whose clock was set: the functions that tell the time are shadowed for new connections."""

from __future__ import annotations

import asyncpg

_SHADOW = """
CREATE SCHEMA IF NOT EXISTS set_clock;
CREATE TABLE IF NOT EXISTS set_clock.by (seconds double precision NOT NULL);
CREATE OR REPLACE FUNCTION set_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
    'SELECT pg_catalog.clock_timestamp() + make_interval(secs => (SELECT seconds FROM set_clock.by))';
"""


async def set_clock(url: str, seconds: float) -> None:
    """Let the clock of the database at *url* be so many seconds ahead (negative: behind); 0 sets it right again."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_SHADOW)
        await connection.execute("DELETE FROM set_clock.by")
        await connection.execute("INSERT INTO set_clock.by VALUES ($1)", seconds)
        name = await connection.fetchval("SELECT quote_ident(current_database())")
        await connection.execute(f"ALTER DATABASE {name} SET search_path = set_clock, pg_catalog, public")
    finally:
        await connection.close()
