"""A server that became read-only after a failover is unavailable for the controller and the worker."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.sqlstate import is_away, sqlstate
from handlers.database.transaction import transaction
from handlers.errors import DatabaseDown


async def write_read_only(engine: AsyncEngine, *, raw_errors: bool = False) -> None:
    """Write to the ledger in a read-only transaction."""
    async with transaction(engine, raw_errors=raw_errors) as tx:
        await tx.execute(text("SET TRANSACTION READ ONLY"))
        await tx.execute(text("UPDATE runbook.lock SET holder = holder"))


async def test_the_controller_can_ask_again(engine: AsyncEngine) -> None:
    """The ledger cannot be written now: the error is TryAgain, not a database error."""
    with pytest.raises(DatabaseDown, match="not available now"):
        await write_read_only(engine)


async def test_the_worker_sees_the_error_as_it_is_and_takes_it_for_an_absence(engine: AsyncEngine) -> None:
    """With raw_errors, errors inside a batch stay the driver's, to distinguish a bad event from a bad server."""
    with pytest.raises(DBAPIError) as caught:
        await write_read_only(engine, raw_errors=True)
    assert sqlstate(caught.value) == "25006"
    assert is_away(caught.value)


async def test_a_callers_transaction_is_joined_and_not_ended(engine: AsyncEngine) -> None:
    """Given a connection, the query runs in the caller's transaction, and is rolled back with it."""
    async with engine.connect() as connection:
        outer = await connection.begin()
        async with transaction(connection) as tx:
            assert tx is connection
            await tx.execute(text("CREATE TABLE kept (id int)"))
        await outer.rollback()
        assert (await connection.execute(text("SELECT to_regclass('kept')"))).scalar() is None
