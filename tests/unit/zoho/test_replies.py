"""What an answer of the source means: by status and code, in any order and with any text."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.errors import ExitCode
from handlers.zoho.replies import MINUTE_SECONDS, Meaning, day_is_over, meaning_of


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (200, {"code": 0, "message": "success"}, Meaning.GOOD),
        (200, {"items": []}, Meaning.GOOD),
        (201, {"code": "0"}, Meaning.GOOD),
        # A success in words, and an error in its code.
        (200, {"code": 1002, "message": "success"}, Meaning.GONE),
        (404, {"code": 1002, "message": "Item does not exist"}, Meaning.GONE),
        (404, {"code": 2006}, Meaning.GONE),
        # A module's own code of a missing record counts with its status; the same code alone may say anything.
        (404, {"code": 3006}, Meaning.GONE),
        (400, {"code": 3006}, Meaning.REFUSED),
        # A wrong address is no missing record: it would delete everything.
        (404, {"code": 5, "message": "Invalid URL Passed"}, Meaning.REFUSED),
        (404, {"message": "no code"}, Meaning.REFUSED),
        (404, None, Meaning.REFUSED),
        (401, {"code": 14}, Meaning.TOKEN),
        (401, None, Meaning.TOKEN),
        (401, {"code": 57}, Meaning.REFUSED),
        (400, {"code": 4029}, Meaning.REFUSED),
        (400, {"code": 2}, Meaning.REFUSED),
        (403, None, Meaning.REFUSED),
        (429, {"code": 44}, Meaning.MINUTE),
        (429, {"code": 36}, Meaning.MINUTE),
        (429, None, Meaning.MINUTE),
        (429, {"code": 1070}, Meaning.CROWD),
        (429, {"code": 45}, Meaning.DAY),
        (400, {"code": 45}, Meaning.DAY),
        (500, {"code": 1000}, Meaning.AGAIN),
        (502, None, Meaning.AGAIN),
        # HTML of a proxy with a good status.
        (200, None, Meaning.AGAIN),
        (302, None, Meaning.AGAIN),
    ],
)
def test_the_code_says_what_to_do(status: int, body: dict[str, Any] | None, meaning: Meaning) -> None:
    """Never the text."""
    assert meaning_of(status, body, {}).meaning is meaning


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, MINUTE_SECONDS),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, MINUTE_SECONDS),
        ({"retry-after": "-4"}, MINUTE_SECONDS),
        ({"retry-after": "soon"}, MINUTE_SECONDS),
    ],
)
def test_a_minute_is_waited_for_as_long_as_the_source_asks(headers: dict[str, str], seconds: float) -> None:
    """Without a usable number for a whole minute."""
    assert meaning_of(429, {"code": 44}, headers).wait_seconds == seconds


def test_a_long_wait_is_not_slept_through() -> None:
    """The sync stops instead, and goes on later."""
    assert meaning_of(429, {"code": 44}, {"retry-after": "7200"}).meaning is Meaning.DAY


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-rate-limit-reset": "7200"}, 7200),
        ({"retry-after": "60", "x-rate-limit-reset": "7200"}, 60),
        ({}, 3600),
    ],
)
def test_the_day_ends_when_the_source_says_so(headers: dict[str, str], seconds: float) -> None:
    """Without that the sync asks again in an hour."""
    assert meaning_of(429, {"code": 45}, headers).wait_seconds == seconds


def test_the_end_of_the_day_is_no_error() -> None:
    """Exit code 4, with the time after which it goes on."""
    error = day_is_over(7200, "Zoho /x: status 429")
    assert error.exit_code is ExitCode.HELD
    assert "2 h 00 min" in str(error)


def test_the_sources_words_are_shortened() -> None:
    """An answer may hold anything, and sentences go to the ledger."""
    assert len(meaning_of(400, {"code": 2, "message": "x" * 5000}, {}).sentence) < 300
