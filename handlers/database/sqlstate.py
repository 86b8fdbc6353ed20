"""The SQLSTATEs (PostgreSQL's error codes) that we handle. No other module interprets them.

The codes and their classes: PostgreSQL documentation, appendix A. A shorter entry covers every code that begins with
it.
"""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from handlers.errors import ConnectionFault, DatabaseDown

AWAY = ("08", "53", "57P", "58", "25006")
"""The database is unavailable: connection lost, no resources, shutdown, I/O error, or read-only after a failover.
Nothing was changed, and neither an event nor a release caused it."""
CONNECTION = ("25", "26", "34", "42P03", "42P05", "08P01", "0A000", "57014", "XX000")
"""The connection's own state is wrong, or its statement was cut short: a failed transaction (25), a prepared statement
or cursor that is missing (26, 34) or exists already (42P0x), messages that do not fit (08P01), a plan or a cache that a
migration outdated (0A000, XX000), a statement_timeout (57014). A new connection may work; the
data are not to blame. `AWAY` wins."""
NEVER_OF_AN_EVENT = ("26", "34", "42P03", "42P05", "08P01")
"""The codes of `CONNECTION` that no statement of a handler can cause: another client shares the server session."""
TRANSIENT = ("40", "55")
"""Serialization failure, deadlock, or an object in use: a retry may work."""
NO_LOGIN = ("28", "3D000")
"""A login or a database name that fails until the operator fixes the configuration."""
NO_TABLE = ("42P01", "42703", "3F000")
"""A missing table, column or schema."""
NOT_ADOPTED = ("42P01", "42703", "42P10", "42501")
"""A missing table, column, unique key or privilege: the ERP's tables were not prepared by `runbook db adopt`."""
CONTENT = ("22", "23", "54")
"""The values themselves were refused: invalid data, a constraint, or a limit of the server."""
UNIQUE_VIOLATION = "23505"
FOREIGN_KEY_VIOLATION = "23503"
NOT_PERMITTED = "42501"
LOCK_TIMEOUT = ("55P03", "40P01")
"""A lock timeout, and a deadlock."""

DRIVER_ERRORS = (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""Every error of a call to the database: SQLAlchemy passes on asyncpg's own errors while it connects."""

_READ_ONLY = "25006"
_LENGTH = 5


def chain(error: BaseException) -> Iterator[BaseException]:
    """*error* and its causes, outermost first: `orig` of a wrapped error, else its `__cause__`."""
    visited: set[int] = set()
    link: BaseException | None = error
    # An exception chain can be cyclic.
    while link is not None and id(link) not in visited:
        yield link
        visited.add(id(link))
        original = getattr(link, "orig", None)
        link = original if isinstance(original, BaseException) else link.__cause__


def root_of(error: BaseException) -> BaseException:
    """The innermost error, whose text has neither the statement nor its parameters."""
    return list(chain(error))[-1]


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of *error*, wherever it was wrapped; None when the database did not raise it."""
    for link in chain(error):
        state = getattr(link, "sqlstate", None)
        if isinstance(state, str) and len(state) == _LENGTH:
            return state
    return None


def is_of_content(code: str) -> bool:
    """Whether *code* says that the values themselves were refused, which no retry changes.

    Not what a parent, or a number that is given up, may still cure.
    """
    waits = (UNIQUE_VIOLATION, FOREIGN_KEY_VIOLATION)
    return len(code) == _LENGTH and code.startswith(CONTENT) and code not in waits


def is_away(error: BaseException) -> bool:
    """Whether *error* means that the database is unavailable: it must count neither as an attempt nor as a breach."""
    state = sqlstate(error)
    if state is not None:
        return state.startswith(AWAY) and not _is_connection_state(state)
    return any(
        isinstance(link, ConnectionError | DatabaseDown)
        or (isinstance(link, DBAPIError) and link.connection_invalidated)
        for link in chain(error)
    )


def is_connection_fault(error: BaseException) -> bool:
    """Whether *error* says something about the connection only: use a new one, and count nothing."""
    state = sqlstate(error)
    if state is not None:
        return _is_connection_state(state)
    return any(
        isinstance(link, ConnectionFault | asyncpg.OutdatedSchemaCacheError)
        # asyncpg's own complaint about the state of a connection; its subclasses are about values and settings.
        or type(link) is asyncpg.InterfaceError
        for link in chain(error)
    ) and not is_away(error)


def _is_connection_state(state: str) -> bool:
    return state.startswith(CONNECTION) and state != _READ_ONLY


def message_of(error: BaseException) -> str:
    """The first line of the database's own message, without SQLAlchemy's wrapping."""
    inner = getattr(error, "orig", None) or error
    text = str(inner.__cause__ or inner).strip() or type(inner).__name__
    return text.splitlines()[0]
