"""The folder of one run of the tests, and the end of everything that was started in it.

Whatever a test starts has its temporary files in this folder: TMPDIR is in it, or a server works in it. By that it is
known, however it was detached. A reaper waits for the end of the run, also by SIGKILL; then it ends what is left and
removes the folder. Where somebody killed the reaper too, the next run does its work.

Standard library only: the reaper runs this file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PREFIX = "tds-tests-"
_ALIVE = "alive"
"""The file that the run holds locked while it lives: a process id could be given again."""
_KEPT = "kept"
_ASKED_SECONDS = 5.0
_KILLED_SECONDS = 20.0
_NEWBORN_SECONDS = 0.5


@dataclass(kw_only=True)
class Run:
    """This run, as a plugin of the pytest process that leads it."""

    folder: Path
    lock: int
    reaper: subprocess.Popen[bytes]

    @classmethod
    def begin(cls) -> Run:
        """Clear what dead runs left, make the folder the place of all temporary files, and start its reaper."""
        sweep()
        folder, lock = _make()
        # A session and an environment of its own: what ends the run, or looks for what it started, must not find it.
        reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(folder)],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None
        return cls(folder=folder, lock=lock, reaper=reaper)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Keep the files of a run that failed, for whoever asks why. The next run removes them."""
        if exitstatus:
            (self.folder / _KEPT).touch()

    def pytest_unconfigure(self) -> None:
        """Let the reaper begin, and wait for it."""
        os.close(self.lock)
        self.reaper.wait(_ASKED_SECONDS + 2 * _KILLED_SECONDS)


def _make() -> tuple[Path, int]:
    """A new folder and its lock. It has its name only when it is locked, so that no other run takes it for dead."""
    unnamed = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}")).resolve()
    lock = os.open(unnamed / _ALIVE, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder = unnamed.with_name(unnamed.name.removeprefix("new-"))
    unnamed.rename(folder)
    return folder, lock


def sweep() -> None:
    """Clear the folders of ours whose run and reaper are gone."""
    for folder in Path(tempfile.gettempdir()).resolve().glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.getuid():
                continue
            with (folder / _ALIVE).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                clear(folder)


def reap(folder: Path) -> None:
    """Wait until the run has ended, then end what it left."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with (folder / _ALIVE).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / _KEPT).exists():
            end(folder)
        else:
            clear(folder)


def clear(folder: Path) -> None:
    """End every process of a run and remove its folder."""
    deadline = time.monotonic() + _KILLED_SECONDS
    end(folder)
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:
        # What was being ended may still have written.
        end(folder)
        shutil.rmtree(folder, ignore_errors=True)


def end(folder: Path) -> None:
    """Ask every process of a run to end, and kill what has not in time; again, until there is none."""
    # Asked first, because a PostgreSQL that is killed leaves its shared memory behind.
    _signal_all(folder, signal.SIGTERM, _ASKED_SECONDS)
    _signal_all(folder, signal.SIGKILL, _KILLED_SECONDS)
    # What was between fork and exec when its parent died is known by its TMPDIR only a moment later.
    time.sleep(_NEWBORN_SECONDS)
    _signal_all(folder, signal.SIGKILL, _KILLED_SECONDS)


def _signal_all(folder: Path, number: signal.Signals, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    told: set[int] = set()
    while (left := find(folder)) and time.monotonic() < deadline:
        for pid in set(left) - told:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # To PostgreSQL SIGTERM means to wait for its clients, SIGINT to send them away.
                os.kill(pid, signal.SIGINT if number is signal.SIGTERM and left[pid] else number)
        told |= left.keys()
        time.sleep(0.05)


def find(folder: Path) -> dict[int, bool]:
    """The processes that were started in *folder*, ourselves not among them; whether each is a PostgreSQL."""
    if not Path("/proc/self/environ").exists():
        return _find_with_ps(folder)
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        # Gone meanwhile, or somebody else's.
        with contextlib.suppress(OSError):
            is_postgres = (process / "comm").read_bytes() == b"postgres\n"
            if _belongs(process, os.fsencode(folder), is_postgres=is_postgres):
                found[int(process.name)] = is_postgres
    found.pop(os.getpid(), None)
    return found


def _belongs(process: Path, folder: bytes, *, is_postgres: bool) -> bool:
    if (process / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z":
        return False
    if any(
        word == b"TMPDIR=%b" % folder or word.startswith(b"TMPDIR=%b/" % folder)
        for word in (process / "environ").read_bytes().split(b"\0")
    ):
        return True
    # These two write their titles over their environment.
    if is_postgres:
        return os.fsencode((process / "cwd").readlink()).startswith(folder + b"/")
    command = (process / "cmdline").read_bytes()
    return b"sshd" in command and b"-f" in command and folder + b"/" in command


def _find_with_ps(folder: Path) -> dict[int, bool]:
    marks = (f"TMPDIR={folder} ", f"TMPDIR={folder}/", f"-D {folder}/", f"-f {folder}/")
    words = ["ps", "-axEww", "-o", "pid=,command="]
    lines = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    found = {
        int(line.split()[0]): "postgres" in line
        for line in lines
        if any(mark in f"{line} " for mark in marks)
    }
    found.pop(os.getpid(), None)
    return found


if __name__ == "__main__":
    reap(Path(sys.argv[1]))
