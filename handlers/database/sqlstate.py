"""PostgreSQL's error codes: the only place that knows what a SQLSTATE means to us.

The codes and their classes: PostgreSQL documentation, appendix A. An entry of two or three characters stands for
every code that begins with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError

from handlers.errors import DatabaseDown

AWAY = ("08", "53", "57P", "58", "25006")
"""The database is away or cannot work: connection lost, no resources, shutdown, I/O error, or read-only after a
failover. Nothing was changed, and neither an event nor a release is at fault."""
TRANSIENT = ("40", "55", "57014")
"""Serialization failure and deadlock, an object in use, a cancelled statement: the same call may work in a moment."""
NO_LOGIN = ("28", "3D000")
"""A login or a database name that cannot work until somebody changes it."""
NO_TABLE = ("42P01", "42703", "3F000")
"""A table, a column or a schema that is not there."""
NOT_ADOPTED = ("42P01", "42703", "42P10", "42501")
"""A table, a column, a unique key or a right that `runbook db adopt` would have brought."""
CONTENT = ("22", "23", "54")
"""The values themselves were refused: invalid data, a constraint, or a limit of the server."""
UNIQUE_VIOLATION = "23505"
FOREIGN_KEY_VIOLATION = "23503"
NOT_PERMITTED = "42501"
LOCK_TIMEOUT = ("55P03", "40P01")
"""A lock that could not be had in time, and a deadlock."""

_LENGTH = 5


def chain(error: BaseException) -> Iterator[BaseException]:
    """*error* and what it was made from, outermost first: `orig` of a wrapped error, else its `__cause__`."""
    seen: set[int] = set()
    link: BaseException | None = error
    # An error that was raised from one that it caused itself would never end.
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        original = getattr(link, "orig", None)
        link = original if isinstance(original, BaseException) else link.__cause__


def root_of(error: BaseException) -> BaseException:
    """The innermost error: its text says what happened without the statement and its parameters."""
    return list(chain(error))[-1]


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of *error*, wherever it was wrapped; None when the database did not raise it."""
    for link in chain(error):
        state = getattr(link, "sqlstate", None)
        if isinstance(state, str) and len(state) == _LENGTH:
            return state
    return None


def is_away(error: BaseException) -> bool:
    """Whether *error* means that the database itself is away: no attempt and no release may pay for it."""
    state = sqlstate(error)
    if state is not None:
        return state.startswith(AWAY)
    return any(
        isinstance(link, ConnectionError | DatabaseDown)
        or (isinstance(link, DBAPIError) and link.connection_invalidated)
        for link in chain(error)
    )


def message_of(error: BaseException) -> str:
    """The first line of the database's own message, without SQLAlchemy's wrapping."""
    inner = getattr(error, "orig", None) or error
    text = str(inner.__cause__ or inner).strip() or type(inner).__name__
    return text.splitlines()[0]
