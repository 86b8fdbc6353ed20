"""Reading bodies: each in its time and of its size, all together in a bounded memory.

Where too many come in at once the one that has taken longest is let go: a call of the source is here in one piece, and
only who sends it letter by letter is still being read when others arrive.
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


class Gone(Exception):
    """The caller left before its body was complete."""


class Bodies:
    """The bodies that are being read now."""

    def __init__(
        self, *, bytes_max: int, seconds: float, open_max: int, together_bytes_max: int = 64 * 1024 * 1024
    ) -> None:
        self._bytes_max = bytes_max
        self._seconds = seconds
        self._open_max = open_max
        self._together_bytes_max = together_bytes_max
        self._open: dict[asyncio.Timeout, int] = {}
        """How much of each has come, the oldest first."""
        self._let_go_of: set[asyncio.Timeout] = set()
        self._bytes = 0

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body, as far as it may be read."""
        self._check(headers)
        let_go = False
        try:
            async with asyncio.timeout(self._seconds) as deadline:
                self._open[deadline] = 0
                if len(self._open) > self._open_max:
                    self._let_go(deadline)
                try:
                    return await self._whole(receive, deadline)
                finally:
                    self._bytes -= self._open.pop(deadline)
                    let_go = deadline in self._let_go_of
                    self._let_go_of.discard(deadline)
        except TimeoutError:
            if let_go:
                sentence = "too many calls at once, and this one was the slowest: send it again"
                raise Rejected(503, "overloaded", sentence, headers=_CLOSE | {"Retry-After": "2"}) from None
            raise Rejected(408, "slow", "the body did not come in time", headers=_CLOSE) from None

    async def _whole(self, receive: Receive, deadline: asyncio.Timeout) -> bytes:
        parts = bytearray()
        while (message := await receive())["type"] == "http.request":
            parts += message.get("body", b"")
            if len(parts) > self._bytes_max:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(parts)
            self._bytes += len(parts) - self._open[deadline]
            self._open[deadline] = len(parts)
            if self._bytes > self._together_bytes_max:
                self._let_go(None)
        raise Gone

    def _check(self, headers: Headers) -> None:
        """Refuse by the headers alone what will not be read."""
        length, chunked = "", False
        for name, value in headers:
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise Rejected(415, "content_type", "the body must not be compressed", headers=_CLOSE)
            if name == b"transfer-encoding":
                chunked = True
            if name == b"content-length" and _LENGTH.fullmatch(value):
                length = value.decode()
        if length and chunked:
            raise Rejected(400, "malformed", "a body has either a length or chunks", headers=_CLOSE)
        if length and int(length) > self._bytes_max:
            raise self._too_large()

    def _too_large(self) -> Rejected:
        return Rejected(413, "size", f"the body is larger than {self._bytes_max} bytes", headers=_CLOSE)

    def _let_go(self, newest: asyncio.Timeout | None) -> None:
        """End the oldest that is not ending already."""
        now = asyncio.get_running_loop().time()
        for one in self._open:
            when = one.when()
            if one is not newest and when is not None and when > now:
                self._let_go_of.add(one)
                one.reschedule(now)
                return
