"""Waiting for events, and for work that must end when the worker is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

CANCEL_SECONDS = 1.0
"""How long a cancelled task may take to end."""


async def until_stopped(work: Coroutine[None, None, int], stop: asyncio.Event, grace_seconds: float) -> int:
    """Run *work*. After *stop* it has the grace period to finish, then it is cancelled and 0 is returned."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=grace_seconds)
        return task.result() if task.done() else 0
    finally:
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_SECONDS)


async def first_of(seconds: float, *events: asyncio.Event) -> None:
    """Wait until one of *events* is set, at most *seconds*."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
