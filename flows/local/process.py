"""Processes of ours: each in its own session, known by a lock while it lives, ended without leftovers."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from handlers.errors import Refused

STOP_SECONDS = 20.0

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process of ours. A session of its own keeps Ctrl-C away from it, so that we choose the order."""

    process: asyncio.subprocess.Process
    log: Path

    async def stop(self) -> None:
        """Ask it to end, wait with a bound, and leave nothing of its session behind."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            pass
        finally:
            end_session(self.process.pid)
            await self.process.wait()


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A process of ours that outlived the one that started it: its lock says that it lives, and its id."""

    lock: Path

    def lives(self) -> bool:
        """Whether it still runs."""
        return self._pid() is not None

    async def stop(self) -> None:
        """Ask it to end, wait with a bound, and leave nothing of its session behind."""
        if (pid := self._pid()) is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        for _ in range(int(STOP_SECONDS / 0.1)):
            if self._pid() is None:
                break
            await asyncio.sleep(0.1)
        end_session(pid)

    def _pid(self) -> int | None:
        text = holder(self.lock)
        return int(text) if text else None


async def start(
    command: list[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    folder: Path | None = None,
    ends_with_us: bool = False,
    lock: int | None = None,
    listening: int | None = None,
) -> Process:
    """Start *command*, its output in *log*. While it lives it shares the lock of the descriptor *lock*.

    The descriptor *listening* is a socket that the command serves on; its number is among the command's words.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environment),
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            pass_fds=[number for number in (lock, listening) if number is not None],
            preexec_fn=_end_with_parent if ends_with_us else None,
        )
    finally:
        os.close(descriptor)
    if lock is not None:
        write(lock, str(process.pid))
    return Process(process=process, log=log)


def _end_with_parent() -> None:
    """Where the kernel can, it ends this process when our own is killed and cannot do it any more."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_session(leader: int) -> None:
    """Kill what is left of the session that *leader* led."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


@contextmanager
def locked(path: Path, refusal: Callable[[str], Refused]) -> Iterator[int]:
    """Hold the lock file *path*, whose text says who holds it. It is free when its last holder is gone."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal(path.read_text(encoding="utf-8")) from None
        write(descriptor, "")
        yield descriptor
    finally:
        os.close(descriptor)


def write(lock: int, text: str) -> None:
    """Say in the lock file behind the descriptor *lock* who holds it."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, text.encode(), 0)


def holder(path: Path) -> str | None:
    """What the holder of the lock file *path* wrote into it; None when nobody holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return path.read_text(encoding="utf-8")
    else:
        return None
    finally:
        os.close(descriptor)


def last_lines(log: Path, count: int = 5) -> str:
    """The last lines of a log as one line, without the frames that Prefect draws around them."""
    lines = [line.strip(" │╭╰─╮╯") for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return " / ".join([line for line in lines if line][-count:]) or f"{log} is empty"
