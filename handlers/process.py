"""What each process sets up: signal handlers and the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def cancelled_by_sigterm() -> Iterator[None]:
    """Let SIGTERM or SIGHUP cancel the current task, unless SIGTERM has a handler already.

    Started with `nohup`, a process goes on ignoring SIGHUP. Raises SystemExit when such a signal cancelled the task.
    """
    task = asyncio.current_task()
    main = threading.current_thread() is threading.main_thread()
    if task is None or not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signalled = False

    def cancel() -> None:
        nonlocal signalled
        signalled = True
        task.cancel()

    loop = asyncio.get_running_loop()
    numbers = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN
    ]
    for number in numbers:
        loop.add_signal_handler(number, cancel)
    try:
        yield
    except asyncio.CancelledError:
        if signalled:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM, so that repeated Ctrl-C does not interrupt a cleanup."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_NEW_OBJECTS = 50_000
"""A batch of events is some hundred thousand objects, none of them in a reference cycle."""
_DEFAULT = (700, 10, 10)


def tune_garbage_collector() -> None:
    """Run the cyclic garbage collector rarely: it takes 7 % of the time of a process that only reads payloads.

    Objects that exist already live as long as the process: `gc.freeze` excludes them permanently.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 50)


def import_without_collecting() -> None:
    """Run it rarely in a process that is about to import much: it took a tenth of the time of a short command.

    Where somebody has set it, as the tests have, it stays.
    """
    if gc.get_threshold() == _DEFAULT:
        gc.set_threshold(_NEW_OBJECTS, 20, 50)
