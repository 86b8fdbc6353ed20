"""Calls of the source's API: with a token, at the allowed pace, repeated where that can help."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from handlers.entities.document import Refusal, load
from handlers.environment.trust import https_context
from handlers.environment.zoho import Zoho
from handlers.errors import ConfigError, Refused, TryAgain
from handlers.zoho.oauth import Token, Tokens
from handlers.zoho.pacing import Pace
from handlers.zoho.replies import Meaning, Reply, day_is_over, meaning_of

log = logging.getLogger(__name__)

TRIES = 6
"""So often is a call made while the source has a fault."""
_WAITS_MAX = 30
"""So often does one call wait for its minute."""
_PAUSE_FIRST_SECONDS, _PAUSE_MAX_SECONDS = 0.5, 30.0
BODY_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A good answer."""

    body: dict[str, Any]
    """Every number as it was sent."""
    at: datetime | None
    """The source's time, to the second; None where it does not say it."""


@dataclass(frozen=True, kw_only=True)
class Today:
    """What is left of the day: calls, and seconds until the next one."""

    calls_left: int
    seconds_left: float


class Unreadable(Refused):
    """An answer that is no valid JSON, or that PostgreSQL could not store."""


class Api:
    """The API with the settings of one environment. *today* is what may still be called, and how long the day lasts."""

    def __init__(self, settings: Zoho, http: httpx.AsyncClient, *, today: Today) -> None:
        self._settings = settings
        self._http = http
        self._tokens = Tokens(settings, http)
        self._pace = Pace(calls_per_minute=settings.calls_per_minute, calls_at_once=settings.calls_at_once)
        self._calls_left = today.calls_left
        self._today = today
        self._calls = 0

    def limit(self, calls_left: int) -> None:
        """So many calls may be made from now on."""
        self._calls_left = max(0, calls_left)

    def take_calls(self) -> int:
        """The number of calls since it was asked last."""
        calls, self._calls = self._calls, 0
        return calls

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer | None:
        """The answer to one question; None where there is no such record.

        Raises DayIsOver, TryAgain when the source has a lasting fault, Refused when it does not want to answer, and
        Unreadable for an answer that cannot be used.
        """
        tries = waits = 0
        renewed = False
        while True:
            reply, answer, token = await self._once(path, query)
            match reply.meaning:
                case Meaning.GOOD:
                    return answer
                case Meaning.GONE:
                    return None
                case Meaning.DAY:
                    raise day_is_over(reply.wait_seconds, f"{self._where(path)}: {reply.sentence}")
                case Meaning.TOKEN if not renewed and token is not None:
                    renewed = True
                    self._tokens.forget(token)
                case Meaning.MINUTE | Meaning.CROWD if waits < _WAITS_MAX:
                    waits += 1
                    self._pace.wait(reply.wait_seconds)
                    if reply.meaning is Meaning.CROWD:
                        self._pace.narrow()
                    log.info("%s: %s; waiting %g s", self._where(path), reply.sentence, reply.wait_seconds)
                case Meaning.AGAIN | Meaning.MINUTE | Meaning.CROWD:
                    tries += 1
                    if tries >= TRIES:
                        raise TryAgain(f"{self._where(path)}: {reply.sentence}, {tries} times in a row")
                    pause = min(_PAUSE_MAX_SECONDS, _PAUSE_FIRST_SECONDS * 2 ** (tries - 1))
                    self._pace.wait(pause)
                    log.info("%s: %s; again in %g s", self._where(path), reply.sentence, pause)
                case Meaning.TOKEN | Meaning.REFUSED:
                    raise Refused(f"{self._where(path)}: {reply.sentence}")

    async def _once(
        self, path: str, query: Mapping[str, str] | None
    ) -> tuple[Reply, Answer | None, Token | None]:
        token = await self._tokens.get()
        async with self._pace.turn():
            if self._calls_left <= 0:
                raise day_is_over(
                    self._today.seconds_left,
                    f"the {self._settings.calls_per_day} calls of zoho.calls_per_day are used up",
                )
            self._calls_left -= 1
            self._calls += 1
            try:
                response = await self._http.get(
                    f"{token.api_domain}{path}",
                    params={"organization_id": self._settings.organization_id, **(query or {})},
                    headers={"Authorization": f"Zoho-oauthtoken {token.text}"},
                )
            except httpx.HTTPError as error:
                return Reply(meaning=Meaning.AGAIN, sentence=_fault(error)), None, token
        return self._understood(path, response, token)

    def _understood(
        self, path: str, response: httpx.Response, token: Token
    ) -> tuple[Reply, Answer | None, Token]:
        problem: Refusal | None = None
        body: Any = None
        try:
            body = load(response.text, bytes_max=BODY_BYTES_MAX)
        except Refusal as refusal:
            problem = refusal
        reply = meaning_of(response.status_code, body if isinstance(body, dict) else None, response.headers)
        is_json = response.headers.get("content-type", "").startswith("application/json")
        if problem is not None and response.status_code < 300 and is_json:
            # The source has written it so, and would again. A page of a proxy is another matter.
            raise Unreadable(f"{self._where(path)}: {problem}")
        answer = Answer(body=body, at=_date(response)) if reply.meaning is Meaning.GOOD else None
        return reply, answer, token

    def _where(self, path: str) -> str:
        return f"Zoho {path}"


@asynccontextmanager
async def open_api(settings: Zoho, *, today: Today) -> AsyncIterator[Api]:
    """The API with its own HTTP client. Raises ConfigError for a CA file that cannot be used."""
    try:
        context = https_context(settings.ca_file, key="zoho.ca_file")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    limits = httpx.Limits(
        max_connections=settings.calls_at_once, max_keepalive_connections=settings.calls_at_once
    )
    async with httpx.AsyncClient(
        verify=context, timeout=settings.answer_seconds, limits=limits, trust_env=False
    ) as http:
        yield Api(settings, http, today=today)


def _fault(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return f"no answer ({type(error).__name__})"


def _date(response: httpx.Response) -> datetime | None:
    try:
        at = parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
