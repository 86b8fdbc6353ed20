"""The end of a driver's log: the driver marks its own error there, because libraries log as well, also after it."""

from __future__ import annotations

import re
import signal
import sys

from handlers.errors import RunbookError

_MARK = "runbook driver ended: "
_PREFIX = re.compile(r"^[0-9-]+ [0-9:,]+ [A-Z]+ [\w.]+: ")
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:: .*)?$")
_TRACEBACK = "Traceback (most recent call last):"


def write_end(error: Exception | str) -> None:
    """Mark why the driver ends, in one line of its log. Of an unexpected exception it has the first line."""
    if isinstance(error, RunbookError):
        error = str(error)
    elif isinstance(error, Exception):
        first = str(error).strip().splitlines()[:1]
        error = ": ".join([type(error).__name__, *first])
    print(f"{_MARK}{' '.join(error.split())}", file=sys.stderr, flush=True)


def read_end(text: str, exit_status: int | None) -> str:
    """Why the driver ended, from its log and its exit status: its marked error, a signal, or a traceback's error."""
    lines = text.strip().splitlines()
    for line in reversed(lines):
        if line.startswith(_MARK):
            return line.removeprefix(_MARK)
    if exit_status is not None and exit_status < 0:
        return _killed(-exit_status)
    if error := _error_of_traceback(lines):
        return error
    return _PREFIX.sub("", lines[-1]) if lines else f"exit status {exit_status}, without any output"


def _killed(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "unknown"
    hint = ": by a person, or by the kernel when memory was short" if name == "SIGKILL" else ""
    return f"it was killed by signal {number} ({name}){hint}"


def _error_of_traceback(lines: list[str]) -> str:
    """The error that ends the last traceback; empty without one."""
    starts = [number for number, line in enumerate(lines) if _TRACEBACK in line]
    if not starts:
        return ""
    return next((line for line in lines[starts[-1] + 1 :] if _EXCEPTION.match(line)), "")
