"""An error's class comes from its type and SQLSTATE, however it is wrapped, and never from its words."""

from __future__ import annotations

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError, MissingGreenlet

from handlers.database.sqlstate import is_away
from handlers.errors import DatabaseDown, TryAgain
from handlers.queue.diagnose import diagnose, fingerprint
from handlers.queue.event import ErrorClass


def wrapped(original: BaseException) -> DBAPIError:
    """*original* as SQLAlchemy hands it over: with the statement and its parameters in the text."""
    return DBAPIError("UPDATE secret SET x = :x", {"x": "private"}, original)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.DeadlockDetectedError("x"), ErrorClass.TRANSIENT),
        (asyncpg.SerializationError("x"), ErrorClass.TRANSIENT),
        (asyncpg.LockNotAvailableError("x"), ErrorClass.TRANSIENT),
        (asyncpg.QueryCanceledError("x"), ErrorClass.CONNECTION),
        (asyncpg.InFailedSQLTransactionError("x"), ErrorClass.CONNECTION),
        (asyncpg.InvalidSQLStatementNameError("x"), ErrorClass.CONNECTION),
        (asyncpg.DuplicatePreparedStatementError("x"), ErrorClass.CONNECTION),
        (asyncpg.InvalidCachedStatementError("x"), ErrorClass.CONNECTION),
        (asyncpg.ProtocolViolationError("x"), ErrorClass.CONNECTION),
        (asyncpg.ForeignKeyViolationError("x"), ErrorClass.MISSING_PARENT),
        (asyncpg.UniqueViolationError("x"), ErrorClass.MISSING_PARENT),
        (asyncpg.NumericValueOutOfRangeError("x"), ErrorClass.PERMANENT),
        (asyncpg.UndefinedColumnError("timeout, connection reset, deadlock"), ErrorClass.PERMANENT),
    ],
)
def test_a_wrapped_error_has_the_class_of_its_sqlstate(
    error: asyncpg.PostgresError, expected: ErrorClass
) -> None:
    """Bare, wrapped once or raised from another error: the SQLSTATE decides, the words do not."""
    outer = ValueError("deadlock")
    outer.__cause__ = wrapped(error)
    for each in (error, wrapped(error), outer):
        told = diagnose(each)
        assert (told.error_class, told.sqlstate, told.code) == (expected, error.sqlstate, error.sqlstate)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("connection refused"), ErrorClass.PERMANENT),
        (NotImplementedError("server is busy"), ErrorClass.PERMANENT),
        (MissingGreenlet("greenlet_spawn has not been called"), ErrorClass.PERMANENT),
        (TimeoutError(), ErrorClass.TRANSIENT),
        (asyncpg.OutdatedSchemaCacheError("x"), ErrorClass.CONNECTION),
        (asyncpg.InterfaceError("another operation is in progress"), ErrorClass.CONNECTION),
        (asyncpg.DataError("invalid input for query argument"), ErrorClass.PERMANENT),
        (TryAgain("x"), ErrorClass.TRANSIENT),
    ],
)
def test_another_error_has_the_class_of_its_type(error: Exception, expected: ErrorClass) -> None:
    """Words like timeout in a permanent error do not make it transient."""
    assert diagnose(error).error_class is expected


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ConnectionDoesNotExistError("x"),
        asyncpg.AdminShutdownError("x"),
        asyncpg.CrashShutdownError("x"),
        asyncpg.CannotConnectNowError("x"),
        asyncpg.TooManyConnectionsError("x"),
        asyncpg.DiskFullError("x"),
        asyncpg.ReadOnlySQLTransactionError("x"),
        ConnectionRefusedError("x"),
        DatabaseDown("x"),
    ],
)
def test_a_database_that_is_away_is_nobodys_fault(error: Exception) -> None:
    """Connection lost, shutdown, start-up, no room: no event can help it."""
    assert is_away(error)
    assert is_away(wrapped(error))


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.DeadlockDetectedError("x"),
        asyncpg.UniqueViolationError("connection is closed"),
        asyncpg.exceptions._base.DataError("invalid input for query argument"),
        TimeoutError(),
        FileNotFoundError("x"),
        ValueError("the database system is shutting down"),
    ],
)
def test_an_events_own_error_is_not_mistaken_for_a_lost_database(error: Exception) -> None:
    """Otherwise a poisoned event would be retried forever, without counting an attempt."""
    assert not is_away(error)
    assert not is_away(wrapped(error))


def test_a_message_never_shows_the_statement_or_its_parameters() -> None:
    """The text that is stored is the innermost error's: parameters hold customers' data."""
    told = diagnose(wrapped(asyncpg.UniqueViolationError("duplicate key")))
    assert told.message == "UniqueViolationError: duplicate key"


def test_an_error_chain_with_a_loop_ends() -> None:
    """Two errors that name each other as cause do not hang the worker."""
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    assert diagnose(one).error_class is ErrorClass.PERMANENT


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no item 4600000000113826", "no item 17"),
        ("bad value 'abc' for rate", "bad value '12.50' for rate"),
        (
            "event 0b9f7b6e-0d6c-4a43-8d6a-6a1f1f0c9e11 failed",
            "event ffffffff-0d6c-4a43-8d6a-6a1f1f0c9e22 failed",
        ),
        ("Key (sku)=(A-1) exists", "Key (sku)=(B 77) exists"),
        ("at 2025-11-14T10:00:00+0300", "at 2024-01-02T11:12:13+0100"),
        ("a  b\nc", "a b c"),
    ],
)
def test_equal_errors_about_different_records_have_one_fingerprint(one: str, other: str) -> None:
    """Ids, numbers, quoted values, keys and times are masked."""
    assert fingerprint(one) == fingerprint(other)


def test_a_row_that_the_database_shows_is_masked_whole() -> None:
    """A check's refusal prints the row: customers' names are in it, and no two rows are alike."""
    said = (
        'violates check constraint "cheap"\nDETAIL:  Failing row contains ({}, 12.50, 2025-11-04 (x), null).'
    )
    assert fingerprint(said.format("Layla's shop")) == fingerprint(said.format("Omar (new)"))
    assert "Layla" not in fingerprint(said.format("Layla's shop"))


def test_different_errors_keep_different_fingerprints() -> None:
    """The words of an error stay; so do names with digits in them."""
    assert fingerprint("column a is missing") != fingerprint("column b is missing")
    assert "greenlet_spawn" in fingerprint("greenlet_spawn has not been called; xd2s")


@given(st.text())
def test_any_text_has_a_short_stable_fingerprint(text: str) -> None:
    """Whatever an error says, its fingerprint is bounded, and masks nothing further when masked again."""
    once = fingerprint(text)
    assert len(once) <= 300
    assert fingerprint(text) == once
