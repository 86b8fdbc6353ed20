"""What an error means for the event that met it, decided by type and SQLSTATE and never by words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx
from sqlalchemy.exc import DBAPIError

from handlers.database.transaction import clean
from handlers.errors import DatabaseDown, TryAgain
from handlers.queue.event import EntityType, ErrorClass

_GONE = ("08", "53", "57P", "58", "25006")
"""Connection, resources, shutdown, input/output, and a server that became read-only: no event can help it."""

_TRANSIENT = ("40", "55", "57014")
"""Serialization and deadlock, locks and objects in use, a statement that was cancelled."""

_MESSAGE_MAX = 2000

_MASKS = (
    (re.compile(r"Failing row contains \(.*\)", re.DOTALL), "Failing row contains <row>"),
    (re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"), "<id>"),
    (re.compile(r"'[^']*'|\"[^\"]*\""), "<value>"),
    (re.compile(r"=\([^)]*\)"), "=(<value>)"),
    (re.compile(r"(?<![A-Za-z0-9_])-?\d+(?:[.,:T/+-]+\d+)*Z?(?![A-Za-z0-9_])"), "<n>"),
    (re.compile(r"\b(?:0x)?(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}\b"), "<id>"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One error, as it is recorded with the event that met it."""

    error_class: ErrorClass
    code: str
    """The SQLSTATE where the database refused, else the name of the error's type."""
    message: str
    sqlstate: str | None = None
    field: str | None = None
    """The column or constraint that the database named."""


class RowsRefused(Exception):
    """The database refuses some records of a batch, and would take the others."""

    def __init__(self, entity: EntityType, errors: Mapping[str, Exception]) -> None:
        super().__init__(f"the database refuses {len(errors)} of a batch")
        self.entity = entity
        self.errors = errors
        """By the record's id at the source: what the database says about its rows."""


def diagnose(error: BaseException) -> Diagnosis:
    """Name the class, the SQLSTATE and the column of *error*, however often it was wrapped."""
    root = _root(error)
    sqlstate = _sqlstate(error)
    return Diagnosis(
        error_class=_class(error, sqlstate),
        code=(sqlstate or type(root).__name__)[:50],
        message=clean(f"{type(root).__name__}: {root}")[:_MESSAGE_MAX],
        sqlstate=sqlstate,
        field=getattr(root, "column_name", None) or getattr(root, "constraint_name", None),
    )


def is_gone(error: BaseException) -> bool:
    """Whether the database itself is away or cannot work: nobody's fault, so no attempt may be burnt."""
    sqlstate = _sqlstate(error)
    if sqlstate is not None:
        return sqlstate.startswith(_GONE)
    return any(
        isinstance(each, ConnectionError | DatabaseDown)
        or (isinstance(each, DBAPIError) and each.connection_invalidated)
        for each in _chain(error)
    )


def fingerprint(text: str) -> str:
    """An error's text with ids, numbers and quoted values masked, so that equal errors are equal texts."""
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text.strip()[:300]


def _class(error: BaseException, sqlstate: str | None) -> ErrorClass:
    if sqlstate == "23503":
        return ErrorClass.MISSING_PARENT
    if sqlstate is not None:
        return ErrorClass.TRANSIENT if sqlstate.startswith(_TRANSIENT + _GONE) else ErrorClass.PERMANENT
    for each in _chain(error):
        match each:
            case httpx.HTTPStatusError():
                status = each.response.status_code
                return ErrorClass.UPSTREAM if status == 429 or status >= 500 else ErrorClass.PERMANENT
            case httpx.TransportError():
                return ErrorClass.UPSTREAM
            case TryAgain() | OSError():
                return ErrorClass.TRANSIENT
            case _:
                continue
    return ErrorClass.PERMANENT


def _chain(error: BaseException) -> Iterator[BaseException]:
    """*error* and what it was made from, outermost first: `orig` of a wrapped error, else its `__cause__`."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        yield each
        seen.add(id(each))
        original = getattr(each, "orig", None)
        each = original if isinstance(original, BaseException) else each.__cause__


def _root(error: BaseException) -> BaseException:
    """The innermost error: its text says what happened without the statement and its parameters."""
    return list(_chain(error))[-1]


def _sqlstate(error: BaseException) -> str | None:
    for each in _chain(error):
        state = getattr(each, "sqlstate", None)
        if isinstance(state, str) and len(state) == 5:
            return state
    return None
