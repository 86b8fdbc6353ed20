# mypy: ignore-errors
"""What the application needs before it may serve."""

import asyncpg


async def check(connection: asyncpg.Connection) -> str | None:
    """None when everything is there, else what is missing."""
    await connection.fetchval("SELECT count(*) FROM tds_configuration")
    return None
