"""How fast calls are made: so many in a minute, so many at once, and none while the source asks us to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic


class Pace:
    """The turns of the calls of one process. Evenly spaced, so that other programs find room too."""

    def __init__(self, *, calls_per_minute: int, calls_at_once: int) -> None:
        self._spacing = 60.0 / calls_per_minute
        self._at_once = calls_at_once
        self._turns = asyncio.Semaphore(calls_at_once)
        self._surplus = 0
        """So many turns end without another one in their place."""
        self._next = 0.0

    @property
    def at_once(self) -> int:
        """How many calls may run at the same time now."""
        return self._at_once

    def wait(self, seconds: float) -> None:
        """Begin no call for this time."""
        self._next = max(self._next, monotonic() + seconds)

    def narrow(self) -> None:
        """Half as many calls at once, down to one."""
        fewer = max(1, self._at_once // 2)
        self._surplus += self._at_once - fewer
        self._at_once = fewer

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a call may begin; it ends with the block."""
        await self._turns.acquire()
        try:
            # Looked at again after each sleep: meanwhile the source may have asked to wait.
            while (seconds := self._next - monotonic()) > 0:  # noqa: ASYNC110  A time is waited for, no event.
                await asyncio.sleep(seconds)
            self._next = max(self._next, monotonic()) + self._spacing
            yield
        finally:
            if self._surplus:
                self._surplus -= 1
            else:
                self._turns.release()
