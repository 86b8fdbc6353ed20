"""Taking over the ERP's tables: what the handlers need beside what is there, added and never changed.

The statements (`additions`) can be repeated: a second adoption of the same database has nothing to do. The
application works meanwhile: each statement is committed by itself, so that no table stays locked while another is
waited for, and indexes are made beside the writes. What was cut short is finished by the next adoption.
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
from handlers.errors import Refused, TryAgain

_SQL = queries(__name__)

LOCK_WAIT_SECONDS, LOCK_TRIES = 1.0, 10
"""Whoever waits for a table makes all others wait behind it: wait shortly, let them pass, and try again."""
_PAUSE_SECONDS = 0.5
INDEX_WAIT_SECONDS = 30.0
"""Making an index waits for the transactions that are open, and holds up nobody."""
_TURN_SECONDS = 60.0


async def adopt(engine: AsyncEngine, *, dry_run: bool = False, handlers: Handlers = HANDLERS) -> list[str]:
    """Add what is missing, and give the statements; with *dry_run* only give them.

    Raises Refused, and changes nothing, where a table is made in a way that the handlers cannot write to, or belongs
    to somebody else. Raises TryAgain where the application holds a table too long: what was done until then stays.
    """
    if dry_run:
        return [change.statement for change in ddl(await _read(engine, handlers), handlers)]
    async with _turn(engine) as connection:
        catalog = await _read(engine, handlers)
        changes = ddl(catalog, handlers)
        foreign = sorted({_owned(change.table, catalog.places) for change in changes} - {""})
        if foreign:
            raise Refused(f"adopt as the role that owns the ERP's tables; we are {'; '.join(foreign)}")
        for change in changes:
            await _run(connection, change)
    return [change.statement for change in changes]


async def needed(engine: AsyncEngine, handlers: Handlers = HANDLERS) -> list[str]:
    """The statements without which the handlers cannot work; the queue's index only makes them faster."""
    changes = ddl(await _read(engine, handlers), handlers)
    return [change.statement for change in changes if change.table != QUEUE]


def _owned(table: str, places: dict[str, Relation]) -> str:
    """Empty where we may alter *table*; else whose it is."""
    place = places.get(table)
    if place is None or place.kind is None or place.is_ours:
        return ""
    return f"not the owner of table {table}, that is {place.owner}"


async def _read(engine: AsyncEngine, handlers: Handlers) -> Catalog:
    try:
        async with transaction(engine) as tx:
            return await read_catalog(tx, keys(handlers))
    except DBAPIError as error:
        if sqlstate(error) == NOT_PERMITTED:
            raise Refused(f"{message_of(error)}: adopt as the role that owns the ERP's tables") from error
        raise


@asynccontextmanager
async def _turn(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection that commits each statement, while nobody else adopts. It is not used for anything after."""
    with translated_errors(engine):
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            try:
                for _ in range(round(_TURN_SECONDS / _PAUSE_SECONDS)):
                    if (await connection.execute(_SQL["take_turn"])).scalar_one():
                        break
                    await asyncio.sleep(_PAUSE_SECONDS)
                else:
                    raise TryAgain(
                        "another adoption of this database is at work: look again when it has ended"
                    )
                yield connection
            finally:
                # With it go its settings, and our turn.
                await connection.invalidate()


async def _run(connection: AsyncConnection, change: SchemaChange) -> None:
    """Run one statement; where the application holds the table, let it go on and try again, a bounded time."""
    wait_seconds, tries = (INDEX_WAIT_SECONDS, 1) if change.waits_for_all else (LOCK_WAIT_SECONDS, LOCK_TRIES)
    first = change.statement.partition("\n")[0]
    waits = {"milliseconds": str(round(wait_seconds * 1000))}
    await connection.execute(_SQL["wait_at_most"], waits)
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
                    f"the application has had a transaction open too long; what is done stays, adopt again: {first}"
                ) from error
            if state == NOT_PERMITTED:
                raise Refused(
                    f"{message_of(error)}: adopt as the role that owns the ERP's tables ({first})"
                ) from error
            if state == UNIQUE_VIOLATION:
                raise Refused(
                    f"{message_of(error)}: decide which row is it, and adopt again ({first})"
                ) from error
            raise
        else:
            return
