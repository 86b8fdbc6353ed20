"""Child processes: each in its own session, identified by a lock file, stopped without orphans."""

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
    """A child process in its own session. Ctrl-C does not reach it, so we control the order of the shutdown."""

    process: asyncio.subprocess.Process
    log: Path

    async def stop(self) -> None:
        """Send SIGTERM, wait up to STOP_SECONDS, then kill what is left of its session."""
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
class Orphan:
    """A process that outlived the one that started it. Its lock file tells whether it runs, and its process id."""

    lock: Path

    def is_running(self) -> bool:
        """Whether it still runs."""
        return self._pid() is not None

    async def stop(self) -> None:
        """Send SIGTERM, wait up to STOP_SECONDS, then kill what is left of its session."""
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
    """Start *command* with its output in *log*. While it runs it shares the lock of the descriptor *lock*.

    The descriptor *listening* is the socket that the command serves on; the command's arguments name its number.
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
    """On Linux the kernel ends this process when its parent is killed."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_session(leader: int) -> None:
    """Kill the remaining processes of the session of *leader* (a process id)."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


@contextmanager
def locked(path: Path, refusal: Callable[[str], Refused]) -> Iterator[int]:
    """Hold the lock file *path*, whose text names its holder. The kernel frees it when its last holder ends.

    Raises the *refusal* made from that text when another process holds it.
    """
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
    """Write the holder into the lock file of the descriptor *lock*."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, text.encode(), 0)


def holder(path: Path) -> str | None:
    """The text that the holder of the lock file *path* wrote into it; None when it is free."""
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
    """The last lines of a log in one line, without the frames that Prefect draws."""
    lines = [line.strip(" │╭╰─╮╯") for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return " / ".join([line for line in lines if line][-count:]) or f"{log} is empty"
