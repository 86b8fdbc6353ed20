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
        self._running = 0
        self._next = 0.0
        self._changed = asyncio.Condition()

    @property
    def at_once(self) -> int:
        """How many calls may run at the same time now."""
        return self._at_once

    def wait(self, seconds: float) -> None:
        """Begin no call for this time."""
        self._next = max(self._next, monotonic() + seconds)

    def narrow(self) -> None:
        """Half as many calls at once, down to one."""
        self._at_once = max(1, self._at_once // 2)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a call may begin; it ends with the block."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._running < self._at_once)
            self._running += 1
        try:
            # Looked at again after each sleep: meanwhile the source may have asked to wait.
            while (seconds := self._next - monotonic()) > 0:  # noqa: ASYNC110  A time is waited for, no event.
                await asyncio.sleep(seconds)
            self._next = max(self._next, monotonic()) + self._spacing
            yield
        finally:
            async with self._changed:
                self._running -= 1
                self._changed.notify_all()
