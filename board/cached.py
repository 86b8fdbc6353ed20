"""A value that many ask for and one reads: at most so often, and never for more than a share of the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

from handlers.errors import TryAgain

T = TypeVar("T")

SHARE = 0.1
"""A reading that takes two seconds is used for twenty: whoever asks how often, a tenth of the time is spent reading."""


class Cached(Generic[T]):
    """One value. Everybody who asks while it is read waits for the same reading."""

    def __init__(self, read: Callable[[], Awaitable[T]], *, seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        """How long a value is used at least."""
        self._reading: asyncio.Task[T] | None = None
        self._until = float("-inf")

    async def get(self, patience: float) -> T:
        """The value. Raises what the reading raised, and TryAgain where it takes longer than *patience* seconds."""
        if self._reading is None or (self._reading.done() and monotonic() >= self._until):
            self._reading = asyncio.create_task(self._timed())
            # What nobody waits for any more is still retrieved.
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(self._reading)
        except TimeoutError:
            raise TryAgain(f"it is still being read after {patience:g} s: ask again in a moment") from None

    async def _timed(self) -> T:
        began = monotonic()
        try:
            return await self._read()
        finally:
            # Also after a failure: a database that is away is not asked by each caller.
            self._until = monotonic() + max(self._seconds, (monotonic() - began) / SHARE)

    async def close(self) -> None:
        """End a reading that is under way."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait({self._reading})
