"""The PostgreSQL of a local Prefect server, asked before the server starts: it would retry for minutes in silence."""

from __future__ import annotations

import asyncpg

from handlers.errors import Refused, TryAgain

_CONNECT_SECONDS = 10.0
_EXTENSION = "pg_trgm"
"""Prefect's own migrations create it, and fail where it is not installed."""


async def usable(address: str) -> str:
    """*address* in the form that Prefect takes, once its database has answered. Its text is never shown.

    Raises Refused for what is no PostgreSQL, a refused login or a missing module, TryAgain when nothing answers.
    """
    scheme, found, rest = address.partition("://")
    if not found or scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise Refused("--database must refer to an address like postgresql://prefect@db.example.com/prefect")
    try:
        connection = await asyncpg.connect(f"postgresql://{rest}", timeout=_CONNECT_SECONDS)
    except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError) as error:
        why = type(error).__name__ if isinstance(error, TimeoutError) else error
        raise TryAgain(f"the database of --database does not answer: {why}") from error
    except asyncpg.PostgresError as error:
        raise Refused(f"the database of --database refuses the login: {error}") from error
    except (ValueError, asyncpg.InterfaceError) as error:
        raise Refused(
            "--database: its address cannot be read; write it as postgresql://user:password@host/name"
        ) from error
    try:
        query = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = $1)"
        if not await connection.fetchval(query, _EXTENSION):
            raise Refused(
                f"the PostgreSQL of --database has no module {_EXTENSION}, which Prefect's tables need "
                "(in Debian's package postgresql)"
            )
    finally:
        await connection.close()
    return f"postgresql+asyncpg://{rest}"
