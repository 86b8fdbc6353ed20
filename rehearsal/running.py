"""Starting many things at once so that a cancelled start leaves nothing half started."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run *work* in a thread and never leave it behind: a cancelled start must not go on starting things."""
    return await to_its_end(asyncio.to_thread(work))


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Let *work* end before a cancellation comes through, for what cannot be broken off."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            # Told twice to hurry, we still wait: it does not hear us.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise


async def together(*parts: Coroutine[None, None, None]) -> None:
    """Run *parts* at the same time; the first that fails ends the others, and its error is ours."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
