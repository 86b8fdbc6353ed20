"""Finding and ending every process of one rehearsal, however it was started, and whatever its parent is now.

Each process that a rehearsal starts inherits its marker. Two write their title over their environment:
PostgreSQL is known by the data folder that it works in, sshd by the settings file that it was started with.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

MARKER = "TDS_REHEARSAL"
"""The variable that marks the processes of a rehearsal with its id."""

_PROC = Path("/proc")
_GONE_SECONDS = 10.0


def started_at(pid: int) -> str | None:
    """When *pid* started, as the system writes it, because ids are given again; None: no such process."""
    if _PROC.is_dir() and Path("/proc/self/stat").exists():
        with contextlib.suppress(OSError):
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            return None if fields[0] == "Z" else fields[19]
        return None
    answer = _ps("-o", "stat=,lstart=", "-p", str(pid)).strip()
    return None if not answer or answer.startswith("Z") else answer.partition(" ")[2].strip()


def find(rehearsal_id: str, folder: Path) -> list[int]:
    """All processes of a rehearsal, ourselves not among them."""
    mark = f"{MARKER}={rehearsal_id}"
    if Path("/proc/self/environ").exists():
        found = [
            int(entry.name)
            for entry in _PROC.iterdir()
            if entry.name.isdigit() and _belongs(entry, mark.encode(), os.fsencode(folder))
        ]
    else:
        lines = _ps("-axEww", "-o", "pid=,command=").splitlines()
        found = [
            int(line.split()[0])
            for line in lines
            if mark in line or f"-D {folder}/" in line or f"-f {folder}/" in line
        ]
    return [pid for pid in found if pid != os.getpid()]


def with_variable(name: str, value: str, *, word: str = "") -> list[int]:
    """All processes with this variable in their environment, and *word* in their command line; not ourselves."""
    found = _by_variable(f"{name}={value}")
    return [pid for pid, command in found.items() if word in " ".join(command)]


def with_word(rehearsal_id: str, word: str) -> list[int]:
    """The processes of a rehearsal with this word on their command line, such as a module's name; oldest first."""
    marked = _by_variable(f"{MARKER}={rehearsal_id}")
    return sorted(pid for pid, command in marked.items() if word in command)


def _by_variable(assignment: str) -> dict[int, list[str]]:
    """The command lines of the processes with this variable, by their id."""
    found = {}
    if Path("/proc/self/environ").exists():
        for entry in _PROC.iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if assignment.encode() in (entry / "environ").read_bytes().split(b"\0"):
                        command = (entry / "cmdline").read_bytes().decode(errors="replace")
                        found[int(entry.name)] = command.split("\0")
    else:
        for line in _ps("-axEww", "-o", "pid=,command=").splitlines():
            words = line.split()
            if assignment in words:
                found[int(words[0])] = words[1:]
    found.pop(os.getpid(), None)
    return found


def end(rehearsal_id: str, folder: Path) -> None:
    """Kill all processes of a rehearsal, again and again: a supervisor may just be starting another."""
    deadline = time.monotonic() + _GONE_SECONDS
    while left := find(rehearsal_id, folder):
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes of rehearsal {rehearsal_id} do not end: {left}")
        time.sleep(0.02)


def _belongs(entry: Path, mark: bytes, folder: bytes) -> bool:
    """Whether the process is one of the rehearsal's; a zombie is gone already."""
    try:
        if (entry / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z":
            return False
        if mark in (entry / "environ").read_bytes().split(b"\0"):
            return True
        command = (entry / "cmdline").read_bytes()
        if b"sshd" in command and b"-f" in command:
            return folder + b"/" in command
        return os.fsencode((entry / "cwd").readlink()).startswith(folder + b"/postgres/")
    except (OSError, IndexError):
        return False


def _ps(*words: str) -> str:
    return subprocess.run(["ps", *words], capture_output=True, text=True, check=False).stdout
