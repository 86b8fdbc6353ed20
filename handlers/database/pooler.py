"""Recognizing a connection pooler that lends one server session to several clients.

pgbouncer in transaction mode, and its relatives, give a client another session after each transaction. Then prepared
statements, session settings, advisory locks and LISTEN are lost, or reach other clients. A pooler in session mode is
like no pooler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg

from handlers.errors import LoginRefused

Connect = Callable[..., Awaitable[asyncpg.Connection]]
"""Makes one more connection to the same host."""

_LOOKS = 3
_SHARED = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""What was just prepared is in another session."""
_NO_TRANSACTIONS = "pooling mode"
"""pgbouncer's words in statement mode, which allows no transactions."""
_CURE = "use the address of the database itself, or a pool in session mode"


async def is_pooled(connection: asyncpg.Connection, connect: Connect, where: str) -> bool:
    """Whether a pooler is between us and the server. Its sessions are set up after connecting.

    Raises LoginRefused, and closes *connection*, when its server session is shared with other clients. A pooler gives
    its clients cancel keys of its own: a connection without one is told apart by a single query.
    """
    try:
        session = await _session(connection)
        if session == connection.get_server_pid():
            return False
        if not await _is_shared(connection, session, connect):
            return True
    except BaseException as error:
        connection.terminate()
        if not isinstance(error, _SHARED) and _NO_TRANSACTIONS not in str(error):
            raise
    connection.terminate()
    raise LoginRefused(f"{where} is a pooler in transaction mode, which loses locks and LISTEN: {_CURE}")


async def _is_shared(connection: asyncpg.Connection, session: int, connect: Connect) -> bool:
    """Whether a second client is lent the session of *connection*, or takes its place."""
    second = await connect()
    try:
        async with second.transaction():
            if await _session(second) == session:
                return True
            return any([await _session(connection) != session for _ in range(_LOOKS)])
    finally:
        second.terminate()


async def _session(connection: asyncpg.Connection) -> int:
    """The process of the server session in which this statement runs."""
    # Without a name: in a shared session another client may have prepared one of the same name.
    statement = await connection.prepare("SELECT pg_backend_pid()", name="")
    process: int = await statement.fetchval()
    return process
