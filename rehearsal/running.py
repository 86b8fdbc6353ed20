"""Starting many things at once so that a cancelled start leaves nothing half started."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run *work* in a thread and never leave it behind: a cancelled start must not go on starting things."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            # Told twice to hurry, we still wait: the thread does not hear us.
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


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, or a terminal that closes, cancel the task we are in, unless it is handled already."""
    task = asyncio.current_task()
    main = threading.current_thread() is threading.main_thread()
    if task is None or not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    told = False

    def cancel() -> None:
        nonlocal told
        told = True
        task.cancel()

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, cancel)
    try:
        yield
    except asyncio.CancelledError:
        if told:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Clean up to the end, however often somebody presses Ctrl-C meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
