"""Transactions on the environment's database, with the driver's errors said in our own words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import fields, is_dataclass
from datetime import date

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.errors import DatabaseDown, Refused

Bind = AsyncEngine | AsyncConnection
"""Where a query runs: in a transaction of its own (an engine), or inside the caller's (a connection)."""

_GONE = ("08", "57P01", "57P02", "57P03", "53300")
"""SQLSTATEs of a database that is away or full for the moment: nothing was changed, ask again."""
_NO_TABLE = ("42P01", "42703", "3F000")
"""SQLSTATEs of a table, column or schema that is not there."""
_NOT_ALLOWED = ("28", "3D000")
"""SQLSTATEs of a login that cannot work until somebody mends it."""


@asynccontextmanager
async def begin(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A new transaction that commits at the end. Nothing but queries belongs in it."""
    with translated_errors(engine):
        async with engine.begin() as tx:
            yield tx


@asynccontextmanager
async def transaction(place: Bind) -> AsyncIterator[AsyncConnection]:
    """The caller's transaction when *place* is a connection, else a new one that commits at the end."""
    if isinstance(place, AsyncConnection):
        yield place
        return
    async with begin(place) as tx:
        yield tx


@contextmanager
def translated_errors(engine: AsyncEngine) -> Iterator[None]:
    """Turn "the database is away" and "it does not let us in" into errors that say what to do."""
    where = engine.url.set(drivername="postgresql").render_as_string(hide_password=True)
    try:
        yield
    except (OSError, TimeoutError) as error:
        raise DatabaseDown(
            f"the database {where} does not answer: {error or type(error).__name__}"
        ) from error
    except Exception as error:
        state = sqlstate(error) or ""
        if state.startswith(_GONE) or (isinstance(error, DBAPIError) and error.connection_invalidated):
            raise DatabaseDown(
                f"the database {where} is not available just now: {message_of(error)}"
            ) from error
        if state.startswith(_NOT_ALLOWED):
            raise Refused(
                f"the database {where} does not let us in: {message_of(error)}; "
                "check database.url and database.password"
            ) from error
        if state in _NO_TABLE and "runbook" in message_of(error):
            raise Refused(
                f"the ledger in {where} is missing or older than this runbook ({message_of(error)}): "
                "bring it up to date with runbook db upgrade"
            ) from error
        raise


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's own code for *error*, wherever SQLAlchemy has wrapped it."""
    seen: BaseException | None = error
    # Causes can run in a circle when an error is raised from one that it caused itself.
    for _ in range(20):
        if seen is None:
            return None
        code = getattr(seen, "sqlstate", None)
        if isinstance(code, str):
            return code
        seen = getattr(seen, "orig", None) or seen.__cause__
    return None


def message_of(error: BaseException) -> str:
    """The first line of what the database said, without SQLAlchemy's wrapping."""
    inner = getattr(error, "orig", None) or error
    text = str(inner.__cause__ or inner).strip() or type(inner).__name__
    return text.splitlines()[0]


def clean(text: str) -> str:
    """*text* as PostgreSQL can keep it: without NUL characters and broken surrogates."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def as_json(value: object) -> str:
    """*value* as text for a jsonb column; dataclasses become objects, ids and times text; NaN is refused."""
    return json.dumps(_storable(value), ensure_ascii=False, allow_nan=False)


def _storable(value: object) -> object:
    stored: object
    match value:
        case str():
            stored = clean(value)
        case bool() | int() | float() | None:
            stored = value
        case Mapping():
            stored = {clean(str(key)): _storable(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            stored = [_storable(item) for item in value]
        case date():
            stored = value.isoformat()
        case _ if is_dataclass(value):
            stored = {field.name: _storable(getattr(value, field.name)) for field in fields(value)}
        case _:
            stored = str(value)
    return stored
