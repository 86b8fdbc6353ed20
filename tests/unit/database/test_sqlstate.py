"""SQLSTATEs are interpreted in one place, the same way for the worker and the controller."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from handlers.database.sqlstate import is_away, message_of, sqlstate
from handlers.database.transaction import translated_errors
from handlers.errors import ConnectionFault, DatabaseDown, Refused
from handlers.queue.diagnose import diagnose
from handlers.queue.event import ErrorClass

AWAY = (
    "08000",
    "08003",
    "08006",
    "25006",
    "53100",
    "53200",
    "53300",
    "57P01",
    "57P02",
    "57P03",
    "57P04",
    "58030",
)
FAULTS = ("25P02", "25P03", "26000", "34000", "42P05", "08P01", "0A000", "57014", "XX000")
NOT_AWAY = ("23505", "22P02", "40P01", "40001", "55P03", "42P01", "28P01")
ENGINE = create_async_engine("postgresql+asyncpg://runbook@127.0.0.1:1/erp")


def raised(code: str, text: str = "what the server said") -> DBAPIError:
    """An error as SQLAlchemy raises it when PostgreSQL answers with *code*."""
    original = asyncpg.PostgresError.new({"C": code, "M": text})
    assert original.sqlstate == code
    return DBAPIError("SELECT 1", {"secret": "parameter"}, original)


@pytest.mark.parametrize("code", AWAY)
def test_the_worker_takes_the_code_for_an_absence(code: str) -> None:
    """No attempt is counted, and the error is retried."""
    assert is_away(raised(code))
    assert diagnose(raised(code)).error_class is ErrorClass.TRANSIENT


@pytest.mark.parametrize("code", AWAY)
def test_the_controller_takes_the_code_for_an_absence(code: str) -> None:
    """The error is DatabaseDown, which every retry policy repeats."""
    with (
        pytest.raises(DatabaseDown, match="is not available now: what the server said"),
        translated_errors(ENGINE),
    ):
        raise raised(code)


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_of_the_connection_is_neither_an_absence_nor_an_events(code: str) -> None:
    """The worker replaces the connection; the controller tries a few times instead of waiting for the database."""
    assert not is_away(raised(code))
    assert diagnose(raised(code)).error_class is ErrorClass.CONNECTION
    with pytest.raises(ConnectionFault, match="broke down: what the server said"), translated_errors(ENGINE):
        raise raised(code)


@pytest.mark.parametrize("code", NOT_AWAY)
def test_another_code_is_no_absence_for_either(code: str) -> None:
    """A constraint, a deadlock or a wrong password is an error of a database that is available."""
    assert not is_away(raised(code))
    with pytest.raises((DBAPIError, Refused)), translated_errors(ENGINE):
        raise raised(code)


def test_a_wrong_password_and_a_missing_ledger_say_what_to_do() -> None:
    """A retry cannot help: the message names the key to check or the command to run."""
    with (
        pytest.raises(Refused, match=r"Check database\.url and database\.password"),
        translated_errors(ENGINE),
    ):
        raise raised("28P01")
    missing = raised("42P01", 'relation "runbook.release" does not exist')
    with pytest.raises(Refused, match="runbook db upgrade"), translated_errors(ENGINE):
        raise missing


def test_a_table_of_the_erp_that_is_missing_is_not_the_ledgers_fault() -> None:
    """The message suggests `runbook db upgrade` only for a name of our own schema."""
    with pytest.raises(DBAPIError), translated_errors(ENGINE):
        raise raised("42P01", 'relation "products" does not exist')


def test_the_code_is_found_however_often_it_was_wrapped() -> None:
    """The code of a cause counts, an invalid code does not, and a cyclic exception chain ends."""
    outer = RuntimeError("outer")
    outer.__cause__ = raised("40P01")
    assert sqlstate(outer) == "40P01"
    strange = RuntimeError("strange")
    strange.sqlstate = "not five"  # type: ignore[attr-defined]
    strange.__cause__ = outer
    outer.__cause__ = strange
    assert sqlstate(strange) is None


def test_the_message_is_the_servers_own_line() -> None:
    """Neither the statement nor its parameters are in it."""
    assert message_of(raised("40P01", "deadlock detected\nDETAIL: more")) == "deadlock detected"
