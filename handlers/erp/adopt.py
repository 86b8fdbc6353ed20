"""Adopting the ERP's tables: adding what the handlers need, while the application runs.

The statements (`additions`) are idempotent: a second adoption has nothing to do, and an interrupted one is finished by
the next. Each statement is its own transaction, so that no table stays locked while another is waited for. Indexes are
created concurrently.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.queries import queries
from handlers.database.sqlstate import LOCK_TIMEOUT, NOT_PERMITTED, UNIQUE_VIOLATION, message_of, sqlstate
from handlers.database.transaction import transaction, translated_errors
from handlers.entities.base import Handlers
from handlers.entities.registry import HANDLERS
from handlers.erp.additions import QUEUE, SchemaChange, ddl, keys
from handlers.erp.catalog import Catalog, Relation, read_catalog
from handlers.erp.narrow import narrow_columns
from handlers.errors import Refused, TryAgain

_SQL = queries(__name__)

LOCK_WAIT_SECONDS, LOCK_TRIES = 1.0, 10
"""A waiting ALTER TABLE blocks all later queries on the table: use a short lock_timeout, and retry."""
_PAUSE_SECONDS = 0.5
INDEX_WAIT_SECONDS = 30.0
"""CREATE INDEX CONCURRENTLY waits for open transactions and blocks no writes, so it may wait longer."""
_EXCLUSIVE_SECONDS = 60.0
"""How long to wait for another adoption of the same database."""


async def adopt(engine: AsyncEngine, *, dry_run: bool = False, handlers: Handlers = HANDLERS) -> list[str]:
    """Add what is missing and return the statements; with *dry_run* only return them.

    Raises Refused, and changes nothing, when the handlers could not write to a table or another role owns it. Raises
    TryAgain when the application locks a table too long: finished statements stay.
    """
    if dry_run:
        return [change.statement for change in ddl(await _read(engine, handlers), handlers)]
    async with _exclusive_connection(engine) as connection:
        catalog = await _read(engine, handlers)
        changes = ddl(catalog, handlers)
        foreign = sorted({_foreign_owner(change.table, catalog.relations) for change in changes} - {""})
        if foreign:
            raise Refused(
                f"run `runbook db adopt` as the role that owns the ERP's tables; this one is {'; '.join(foreign)}"
            )
        for change in changes:
            await _run(connection, change)
    return [change.statement for change in changes]


async def required_statements(engine: AsyncEngine, handlers: Handlers = HANDLERS) -> list[str]:
    """The statements that the handlers require. Without the queue's index, which only makes them faster."""
    changes = ddl(await _read(engine, handlers), handlers)
    return [change.statement for change in changes if change.table != QUEUE]


async def warnings(engine: AsyncEngine, handlers: Handlers = HANDLERS) -> list[str]:
    """Sentences about existing columns that can be adopted, but cannot hold every amount."""
    async with transaction(engine) as tx:
        # No column is asked for duplicates.
        catalog = await read_catalog(tx, dict.fromkeys(keys(handlers)))
    return narrow_columns(catalog, handlers)


def _foreign_owner(table: str, relations: dict[str, Relation]) -> str:
    """Why we may not alter *table*, with its owner; empty when we may."""
    relation = relations.get(table)
    if relation is None or relation.kind is None or relation.is_ours:
        return ""
    return f"not the owner of table {table}, that is {relation.owner}"


async def _read(engine: AsyncEngine, handlers: Handlers) -> Catalog:
    try:
        async with transaction(engine) as tx:
            return await read_catalog(tx, keys(handlers))
    except DBAPIError as error:
        if sqlstate(error) == NOT_PERMITTED:
            raise Refused(
                f"{message_of(error)}: run `runbook db adopt` as the role that owns the ERP's tables"
            ) from error
        raise


@asynccontextmanager
async def _exclusive_connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection in autocommit mode, while no other adoption runs. It is closed afterwards, not pooled."""
    with translated_errors(engine):
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            try:
                for _ in range(round(_EXCLUSIVE_SECONDS / _PAUSE_SECONDS)):
                    if (await connection.execute(_SQL["take_turn"])).scalar_one():
                        break
                    await asyncio.sleep(_PAUSE_SECONDS)
                else:
                    raise TryAgain(
                        "another `runbook db adopt` of this database is running: wait until it has ended"
                    )
                yield connection
            finally:
                # Its settings and the advisory lock end with the connection.
                await connection.invalidate()


async def _run(connection: AsyncConnection, change: SchemaChange) -> None:
    """Run one statement. While the application locks the table, retry a limited number of times."""
    wait_seconds, tries = (
        (INDEX_WAIT_SECONDS, 1) if change.waits_for_transactions else (LOCK_WAIT_SECONDS, LOCK_TRIES)
    )
    first = change.statement.partition("\n")[0]
    lock_timeout = {"milliseconds": str(round(wait_seconds * 1000))}
    await connection.execute(_SQL["wait_at_most"], lock_timeout)
    for attempt in range(1, tries + 1):
        try:
            await connection.execute(text(change.statement))
        except DBAPIError as error:
            state = sqlstate(error)
            if state in LOCK_TIMEOUT and attempt < tries:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if state in LOCK_TIMEOUT:
                raise TryAgain(
                    f"lock timeout: the application holds a transaction on {change.table}. Finished statements stay. "
                    f"Run `runbook db adopt` again ({first})"
                ) from error
            if state == NOT_PERMITTED:
                raise Refused(
                    f"{message_of(error)}: run `runbook db adopt` as the role that owns the ERP's tables ({first})"
                ) from error
            if state == UNIQUE_VIOLATION:
                raise Refused(
                    f"{message_of(error)}: keep only one of the duplicate rows, then run `runbook db adopt` again "
                    f"({first})"
                ) from error
            raise
        else:
            return
