"""Lets hours pass: everything that a database has written down becomes so much older."""

from __future__ import annotations

import asyncpg

_SHADOW = """
CREATE SCHEMA IF NOT EXISTS hours;
CREATE OR REPLACE FUNCTION hours.pg_postmaster_start_time() RETURNS timestamptz LANGUAGE sql AS
    $$ SELECT timestamptz '2000-01-01 00:00:00+00' $$;
"""
_OLDER = """
SELECT format('UPDATE %I.%I SET %s', c.table_schema, c.table_name,
              string_agg(format('%1$I = %1$I - make_interval(secs => $1)', c.column_name), ', ')) AS change
FROM information_schema.columns c
JOIN information_schema.tables t USING (table_schema, table_name)
WHERE c.table_schema IN ('public', 'runbook') AND t.table_type = 'BASE TABLE' AND c.is_generated = 'NEVER'
  AND c.data_type LIKE 'timestamp%'
GROUP BY c.table_schema, c.table_name
"""


async def before_hours_pass(url: str) -> None:
    """Let the server of the database at *url* run since long ago, for new connections: it was never away."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_SHADOW)
        name = await connection.fetchval("SELECT quote_ident(current_database())")
        await connection.execute(f"ALTER DATABASE {name} SET search_path = hours, pg_catalog, public")
    finally:
        await connection.close()


async def let_pass(url: str, seconds: float) -> None:
    """Let *seconds* pass in which nothing happens in the database at *url*.

    Unlike a clock that is set, every function of the database agrees about the time. What is stored in JSON keeps its
    time: that of an event which has ended is not read again.
    """
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            for row in await connection.fetch(_OLDER):
                await connection.execute(row["change"], seconds)
    finally:
        await connection.close()
