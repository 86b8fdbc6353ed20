"""Reading bodies with limits: a timeout and a size for each, and a total memory for all.

When too many are read at once, the oldest is aborted. Calls of the source arrive in one piece, so only a slow client
is still being read when others arrive.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from handlers.receiver.rejected import Rejected

Headers = Sequence[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_CLOSE = {"Connection": "close"}
_LENGTH = re.compile(rb"[0-9]{1,20}")


class Disconnected(Exception):
    """The client disconnected before its body was complete."""


class BodyReader:
    """Reads bodies, and limits those in progress."""

    def __init__(
        self, *, bytes_max: int, seconds: float, open_max: int, total_bytes_max: int = 64 * 1024 * 1024
    ) -> None:
        self._bytes_max = bytes_max
        self._seconds = seconds
        self._open_max = open_max
        self._total_bytes_max = total_bytes_max
        self._open: dict[asyncio.Timeout, int] = {}
        """Received bytes of each body in progress, the oldest first."""
        self._aborted: set[asyncio.Timeout] = set()
        self._bytes = 0

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body. Raises Rejected over a limit, and Disconnected when the client leaves."""
        self._check(headers)
        aborted = False
        try:
            async with asyncio.timeout(self._seconds) as deadline:
                self._open[deadline] = 0
                if len(self._open) > self._open_max:
                    self._abort_oldest(deadline)
                try:
                    return await self._read_all(receive, deadline)
                finally:
                    self._bytes -= self._open.pop(deadline)
                    aborted = deadline in self._aborted
                    self._aborted.discard(deadline)
        except TimeoutError:
            if aborted:
                sentence = "too many calls at once, and this one was the slowest; send it again"
                raise Rejected(503, "overloaded", sentence, headers=_CLOSE | {"Retry-After": "2"}) from None
            raise Rejected(408, "slow", "the body did not arrive in time", headers=_CLOSE) from None

    async def _read_all(self, receive: Receive, deadline: asyncio.Timeout) -> bytes:
        parts = bytearray()
        while (message := await receive())["type"] == "http.request":
            parts += message.get("body", b"")
            if len(parts) > self._bytes_max:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(parts)
            self._bytes += len(parts) - self._open[deadline]
            self._open[deadline] = len(parts)
            if self._bytes > self._total_bytes_max:
                self._abort_oldest(None)
        raise Disconnected

    def _check(self, headers: Headers) -> None:
        """Reject by the headers a body that will not be read."""
        length, chunked = "", False
        for name, value in headers:
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise Rejected(415, "content_type", "the body must not be compressed", headers=_CLOSE)
            if name == b"transfer-encoding":
                chunked = True
            if name == b"content-length" and _LENGTH.fullmatch(value):
                length = value.decode()
        if length and chunked:
            raise Rejected(
                400,
                "malformed",
                "a body must not have both Content-Length and Transfer-Encoding",
                headers=_CLOSE,
            )
        if length and int(length) > self._bytes_max:
            raise self._too_large()

    def _too_large(self) -> Rejected:
        return Rejected(413, "size", f"the body is larger than {self._bytes_max} bytes", headers=_CLOSE)

    def _abort_oldest(self, newest: asyncio.Timeout | None) -> None:
        """Abort the oldest body that is not being aborted already, except *newest*."""
        now = asyncio.get_running_loop().time()
        for body in self._open:
            ends_at = body.when()
            if body is not newest and ends_at is not None and ends_at > now:
                self._aborted.add(body)
                body.reschedule(now)
                return
