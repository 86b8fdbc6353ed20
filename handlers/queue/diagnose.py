"""The class of an error, from its type and SQLSTATE, never from its text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from handlers.database.jsonable import clean
from handlers.database.sqlstate import (
    AWAY,
    FOREIGN_KEY_VIOLATION,
    TRANSIENT,
    UNIQUE_VIOLATION,
    chain,
    is_connection_fault,
    root_of,
    sqlstate,
)
from handlers.errors import TryAgain
from handlers.queue.event import EntityType, ErrorClass

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
    """One error, as it is recorded with its event."""

    error_class: ErrorClass
    code: str
    """The SQLSTATE of a database error, otherwise the name of the error's type."""
    message: str
    sqlstate: str | None = None
    field: str | None = None
    """The column or constraint in the database's error."""


class RowsRefused(Exception):
    """The database refuses some records of a batch; the others are good."""

    def __init__(self, entity: EntityType, errors: Mapping[str, Exception]) -> None:
        super().__init__(f"the database refuses {len(errors)} records of a batch")
        self.entity = entity
        self.errors = errors
        """The database's error for each record, by its id at the source."""


def diagnose(error: BaseException) -> Diagnosis:
    """The class, SQLSTATE and column of *error*, also of a wrapped one."""
    root = root_of(error)
    state = sqlstate(error)
    return Diagnosis(
        error_class=_class(error, state),
        code=(state or type(root).__name__)[:50],
        message=clean(f"{type(root).__name__}: {root}")[:_MESSAGE_MAX],
        sqlstate=state,
        field=getattr(root, "column_name", None) or getattr(root, "constraint_name", None),
    )


def fingerprint(text: str) -> str:
    """The text of an error with ids, numbers and quoted values masked, to group equal errors."""
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text.strip()[:300]


def _class(error: BaseException, state: str | None) -> ErrorClass:
    # A parent may come, and the record that has a number may give it up.
    if state in (FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION):
        return ErrorClass.MISSING_PARENT
    if is_connection_fault(error):
        return ErrorClass.CONNECTION
    if state is not None:
        return ErrorClass.TRANSIENT if state.startswith(TRANSIENT + AWAY) else ErrorClass.PERMANENT
    is_transient = any(isinstance(link, TryAgain | OSError) for link in chain(error))
    return ErrorClass.TRANSIENT if is_transient else ErrorClass.PERMANENT
