"""Transactions on the environment's database; errors of the driver become our own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.sqlstate import (
    NO_LOGIN,
    NO_TABLE,
    is_away,
    is_connection_fault,
    message_of,
    sqlstate,
)
from handlers.errors import ConnectionFault, DatabaseDown, LoginRefused, Refused, RunbookError

_RECHECK_SECONDS = 1.0

Bind = AsyncEngine | AsyncConnection
"""Where a query runs: in a transaction of its own (an engine), or inside the caller's (a connection)."""


@asynccontextmanager
async def transaction(bind: Bind, *, raw_errors: bool = False) -> AsyncIterator[AsyncConnection]:
    """The caller's transaction when *bind* is a connection, else a new one that commits at the end.

    Only queries belong in it. Errors are translated by `translated_errors`. With *raw_errors* only an error at the
    start is translated: an error inside may be caused by one event, and the caller needs the original.
    """
    if isinstance(bind, AsyncConnection):
        yield bind
        return
    async with AsyncExitStack() as stack:
        if raw_errors:
            with translated_errors(bind):
                tx = await stack.enter_async_context(bind.begin())
        else:
            stack.enter_context(translated_errors(bind))
            tx = await stack.enter_async_context(bind.begin())
        try:
            yield tx
        except Exception as error:
            if is_connection_fault(error):
                # The pool must not give it out again.
                await tx.invalidate()
            raise


async def remembered_yes(tx: AsyncConnection, name: str, question: TextClause) -> bool:
    """The answer to a yes-no *question* about this database. A yes is kept for the connection, a no for a second.

    Workers ask with each batch, and a ledger may be upgraded while they run.
    """
    known = tx.info.get(name)
    if known is True or (known is not None and time.monotonic() - known < _RECHECK_SECONDS):
        return known is True
    yes = bool((await tx.execute(question)).scalar_one())
    tx.info[name] = yes or time.monotonic()
    return yes


@contextmanager
def translated_errors(engine: AsyncEngine) -> Iterator[None]:
    """Translate errors of the driver: DatabaseDown when the database is unavailable, LoginRefused when it says so.

    ConnectionFault for the state of one connection. Refused for a missing or outdated ledger. Every other error passes
    unchanged.
    """
    where = engine.url.set(drivername="postgresql").render_as_string(hide_password=True)
    try:
        yield
    except RunbookError:
        raise
    except (OSError, TimeoutError) as error:
        raise DatabaseDown(
            f"the database {where} does not answer: {error or type(error).__name__}"
        ) from error
    except Exception as error:
        state = sqlstate(error) or ""
        if is_away(error):
            raise DatabaseDown(f"the database {where} is not available now: {message_of(error)}") from error
        if is_connection_fault(error):
            raise ConnectionFault(
                f"a connection to the database {where} broke down: {message_of(error)}"
            ) from error
        if state.startswith(NO_LOGIN):
            raise LoginRefused(
                f"the database {where} refused the login: {message_of(error)}. "
                "Check database.url and database.password"
            ) from error
        if state in NO_TABLE and "runbook" in message_of(error):
            raise Refused(
                f"the ledger in {where} is missing or outdated ({message_of(error)}): "
                "run `runbook db upgrade`"
            ) from error
        raise
