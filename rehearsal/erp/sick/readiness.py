# mypy: ignore-errors
"""What the application needs before it may serve."""

import asyncpg


async def check(connection: asyncpg.Connection) -> str | None:
    """None when everything is there, else what is missing."""
    rates = await connection.fetchval("SELECT count(*) FROM tax_rates")
    return None if rates else "there are no tax rates"
