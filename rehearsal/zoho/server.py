"""The HTTP server of the stand-in: tokens, limits, errors and answers as the source gives them."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import format_datetime
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from handlers.entities.document import dump
from handlers.queue.event import EntityType
from rehearsal.zoho.modules import MODULES
from rehearsal.zoho.organisation import Organisation

ORGANISATION_ID = "10234695"
CLIENT = {
    "client_id": "1000.CLIENT",
    "client_secret": "client-s3cret",
    "refresh_token": "1000.refresh-s3cret",
}
_TOKENS_MAX = 10
_TOKEN_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer, instead of the real one."""

    status: int
    body: str | dict[str, Any] = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    """Close the connection without an answer."""


@dataclass(kw_only=True)
class Fault:
    """Answers for the next *times* calls whose path matches."""

    pattern: str
    reply: Reply
    times: int = 1
    after: int = 0
    """So many matching calls are answered well first."""


def problem(status: int, code: int, message: str, **headers: str) -> Reply:
    """An error as the source writes it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, body={"code": code, "message": message}, headers=named)


INVALID_TOKEN = problem(401, 14, "Invalid value passed for authtoken.")
NO_SCOPE = problem(401, 57, "You are not authorized to perform this operation")
GONE = problem(404, 1002, "The record does not exist.")
DAY_IS_OVER = problem(
    429, 45, "You have exceeded the maximum number of calls for the day.", X_Rate_Limit_Reset="7200"
)


@dataclass(kw_only=True)
class StandIn:
    """A running source. Its organisation, and how it treats callers."""

    organisation: Organisation = field(default_factory=Organisation)
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    before: Callable[[str, Mapping[str, str]], None] | None = None
    """Called with path and query before each answer of the API: a change at the source while somebody reads."""
    called: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with the first call of the API."""
    hold: asyncio.Event | None = None
    """While it is not set, no call of the API is answered."""
    calls_at_once: int = 10
    calls_per_minute: int = 1_000_000
    calls_per_day: int = 1_000_000
    token_seconds: int = 3600
    delay_seconds: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    """By path, as the caller asked."""
    tokens_given: int = 0
    most_at_once: int = 0
    _tokens: set[str] = field(default_factory=set)
    _token_times: deque[float] = field(default_factory=deque)
    _minute: deque[float] = field(default_factory=deque)
    _running: int = 0
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        """Its address, for zoho.accounts_url; the API's own comes with each token."""
        return f"http://127.0.0.1:{self.port}"

    def expire_tokens(self) -> None:
        """No access token that was given is valid any more."""
        self._tokens.clear()

    def fail(self, pattern: str, reply: Reply, *, times: int = 1, after: int = 0) -> None:
        """Answer the next calls of a path with *reply*."""
        self.faults.append(Fault(pattern=pattern, reply=reply, times=times, after=after))

    def asked(self, pattern: str) -> int:
        """How often a path was asked for."""
        return sum(number for path, number in self.calls.items() if re.search(pattern, path))

    async def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The answer to one call."""
        split = urlsplit(target)
        path, query = split.path, dict(parse_qsl(split.query, keep_blank_values=True))
        if path == "/oauth/v2/token":
            return self._token(method, dict(parse_qsl(body.decode())))
        self.called.set()
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            return self._api(path, query, headers)
        finally:
            self._running -= 1

    def _api(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Reply:
        self.calls[path] += 1
        if self.before is not None:
            self.before(path, query)
        for fault in self.faults:
            if re.search(fault.pattern, path) and fault.times > 0:
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault.reply
        if headers.get("authorization", "").removeprefix("Zoho-oauthtoken ") not in self._tokens:
            return INVALID_TOKEN
        if query.get("organization_id") != ORGANISATION_ID:
            return problem(400, 4029, "The organization ID is wrong.")
        return self._limit() or self._found(path, query)

    def _limit(self) -> Reply | None:
        if self._running > self.calls_at_once:
            return problem(429, 1070, "Too many concurrent requests.")
        if self.calls.total() > self.calls_per_day:
            return DAY_IS_OVER
        now = monotonic()
        while self._minute and self._minute[0] <= now - 60:
            self._minute.popleft()
        if len(self._minute) >= self.calls_per_minute:
            seconds = int(60 - (now - self._minute[0])) + 1
            return problem(429, 44, "Too many calls in a minute.", Retry_After=str(seconds))
        self._minute.append(now)
        return None

    def _found(self, path: str, query: Mapping[str, str]) -> Reply:
        for entity, module in MODULES.items():
            if path == module.path:
                if entity in (EntityType.CUSTOMER, EntityType.VENDOR):
                    wanted = (
                        EntityType.VENDOR if query.get("contact_type") == "vendor" else EntityType.CUSTOMER
                    )
                    if entity is not wanted:
                        continue
                if query.get("last_modified_time", "").endswith("Z"):
                    return problem(400, 2, "Invalid value passed for last_modified_time")
                return _good(self.organisation.page(entity, query))
            if path.startswith(f"{module.path}/"):
                found = self.organisation.detail(entity, path.rpartition("/")[2])
                if found is not None:
                    return _good(found)
                if entity is not EntityType.CUSTOMER:
                    return GONE
        return problem(404, 5, "Invalid URL Passed")

    def _token(self, method: str, form: Mapping[str, str]) -> Reply:
        now = monotonic()
        while self._token_times and self._token_times[0] <= now - _TOKEN_SECONDS:
            self._token_times.popleft()
        if method != "POST" or form.get("grant_type") != "refresh_token":
            return Reply(status=200, body={"error": "invalid_request"})
        if any(form.get(name) != value for name, value in CLIENT.items()):
            return Reply(status=200, body={"error": "invalid_code"})
        if len(self._token_times) >= _TOKENS_MAX:
            return Reply(status=200, body={"error": "Access Denied"})
        self._token_times.append(now)
        self.tokens_given += 1
        token = f"1000.access-{next(self._numbers)}"
        self._tokens.add(token)
        values = {"expires_in": self.token_seconds, "api_domain": self.url, "token_type": "Bearer"}
        return Reply(status=200, body={"access_token": token, **values})


def _good(found: dict[str, Any]) -> Reply:
    return Reply(status=200, body={"code": 0, "message": "success", **found})


@asynccontextmanager
async def stand_in(source: StandIn | None = None, *, port: int = 0) -> AsyncIterator[StandIn]:
    """Serve a source on loopback until the end of the block."""
    served = source or StandIn()
    open_: set[asyncio.StreamWriter] = set()

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await _one(served, reader, writer):
                pass
        open_.discard(writer)
        writer.close()

    server = await asyncio.start_server(handled, "127.0.0.1", port)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for writer in open_:
            writer.close()


async def _one(source: StandIn, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one request. False when the connection is to be closed."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    reply = await source.answer(method, target, headers, body)
    if reply.cut:
        return False
    text = reply.body if isinstance(reply.body, str) else dump(reply.body)
    kind = (
        "text/html"
        if isinstance(reply.body, str) and text.startswith("<")
        else "application/json;charset=UTF-8"
    )
    content = text.encode()
    lines = {
        "Date": format_datetime(source.organisation.now(), usegmt=True),
        "Content-Type": kind,
        "Content-Length": str(len(content)),
        **reply.headers,
    }
    named = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"HTTP/1.1 {reply.status} X\r\n{named}\r\n".encode("latin-1") + content)
    await writer.drain()
    return True
