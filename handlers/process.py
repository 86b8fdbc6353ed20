"""What a process of ours sets up for itself: signals that end its work, and the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import Iterator


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


_NEW_OBJECTS = 50_000
"""A batch of events is some hundred thousand objects, none of them in a reference cycle."""


def tune_garbage_collector() -> None:
    """Run the cyclic garbage collector rarely: in a process that only reads payloads it takes 7 % of the time.

    What exists already lives as long as the process, and is left out permanently.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 50)
