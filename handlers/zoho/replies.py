"""What an answer of the API means for the caller, by its status and code and never by its text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from handlers.errors import ExitCode, RunbookError

MINUTE_SECONDS = 61.0
"""The wait after "too many calls in a minute", where the answer does not say how long."""
WAIT_SECONDS_MAX = 900.0
"""A longer wait is not slept through: the sync stops and goes on later."""
DAY_SECONDS = 24 * 3600.0


class Meaning(StrEnum):
    """What the caller should do."""

    GOOD = "good"
    GONE = "gone"
    """There is no such record."""
    TOKEN = "token"
    """The access token is not valid: a new one may be."""
    MINUTE = "minute"
    """Too many calls in a minute: wait, then the same again."""
    CROWD = "crowd"
    """Too many calls at once: a short wait, then fewer of them."""
    DAY = "day"
    """No more calls today."""
    AGAIN = "again"
    """A fault that may pass: the same again, a few times."""
    REFUSED = "refused"
    """The same again cannot help."""


class DayIsOver(RunbookError):
    """No more calls are allowed today. The sync goes on after *seconds*; nothing is lost."""

    exit_code = ExitCode.HELD

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The meaning of an answer, and how long to wait before the next call."""

    meaning: Meaning
    wait_seconds: float = 0.0
    sentence: str = ""


_REFUSED = {
    57: "the API user may not do this, or the refresh token has no scope for it: make a new one with that scope",
    4029: "the organisation is not known: check zoho.organization_id and the data centre of zoho.accounts_url",
}
_GONE = frozenset({1002, 2006})
"""Codes of "does not exist". Other modules have others: they count with a status of 404 only, because a wrong one would
delete a record."""


def meaning_of(status: int, body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> Reply:
    """The meaning of one answer. *body* is None where it was no JSON object, as of a proxy in front."""
    code = _code(body)
    said = _said(status, code, body)
    if status == 429 or code in (44, 45, 1070):
        return _limit(code, headers, said)
    if status == 401 or code in (14, 57):
        return Reply(meaning=Meaning.TOKEN if code != 57 else Meaning.REFUSED, sentence=_because(code, said))
    if status == 404 or code in _GONE:
        # A wrong address (code 5) is no missing record, and neither is a page of a proxy.
        gone = body is not None and code not in (None, 5)
        return Reply(meaning=Meaning.GONE if gone else Meaning.REFUSED, sentence=said)
    if status >= 500 or code == 1000 or (body is None and status < 400):
        return Reply(meaning=Meaning.AGAIN, sentence=said)
    if status >= 400 or code not in (0, None):
        return Reply(meaning=Meaning.REFUSED, sentence=_because(code, said))
    return Reply(meaning=Meaning.GOOD)


def day_is_over(seconds: float, said: str) -> DayIsOver:
    """The error for "no more calls today", with the time after which it goes on."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return DayIsOver(
        f"{said}; the sync goes on where it is in {hours} h {minutes:02} min, or with the next schedule after that",
        seconds=seconds,
    )


def _limit(code: int | None, headers: Mapping[str, str], said: str) -> Reply:
    asked = _seconds(headers.get("retry-after"))
    if code == 45:
        reset = _seconds(headers.get("x-rate-limit-reset"))
        seconds = asked if asked is not None else reset if reset is not None else DAY_SECONDS / 24
        return Reply(meaning=Meaning.DAY, wait_seconds=seconds, sentence=said)
    if code == 1070:
        return Reply(
            meaning=Meaning.CROWD, wait_seconds=1.0 if asked is None else min(asked, 60.0), sentence=said
        )
    if asked is not None and asked > WAIT_SECONDS_MAX:
        return Reply(meaning=Meaning.DAY, wait_seconds=asked, sentence=said)
    return Reply(
        meaning=Meaning.MINUTE, wait_seconds=MINUTE_SECONDS if asked is None else asked, sentence=said
    )


def _seconds(text: str | None) -> float | None:
    """The number of seconds in a header; None where there is none, or a date."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value <= 2 * DAY_SECONDS else None


def _code(body: Mapping[str, Any] | None) -> int | None:
    try:
        return int(str((body or {})["code"]))
    except (KeyError, ValueError):
        return None


def _said(status: int, code: int | None, body: Mapping[str, Any] | None) -> str:
    """The answer for a message; the source's own words are shortened, and are for people only."""
    message = str((body or {}).get("message", "")).strip()[:200]
    where = f"status {status}" + (f", code {code}" if code is not None else "")
    return f"{where}: {message}" if message else where


def _because(code: int | None, said: str) -> str:
    return f"{said} ({_REFUSED[code]})" if code in _REFUSED else said
