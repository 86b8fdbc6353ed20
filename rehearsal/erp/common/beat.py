# mypy: ignore-errors
"""The workers' sign of life: a file that says which process works, and at which revision."""

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from revision import REVISION

FRESH_SECONDS = 10.0
_FILE = Path(__file__).resolve().parent / "var" / "worker.json"
_ended = threading.Event()


def start() -> None:
    """Touch the file each second from a thread of its own."""
    _FILE.parent.mkdir(exist_ok=True)
    _write()
    threading.Thread(target=_go_on, daemon=True).start()


def stop() -> None:
    """Take the sign of life away: these workers have gone."""
    _ended.set()
    _FILE.unlink(missing_ok=True)


def read() -> list[dict[str, Any]]:
    """The workers whose sign of life is fresh."""
    try:
        beat: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [beat] if time.time() - beat["at"] < FRESH_SECONDS else []


def _go_on() -> None:
    while not _ended.wait(1):
        # A full disk is no reason to give no sign of life for ever after.
        with contextlib.suppress(OSError):
            _write()


def _write() -> None:
    beside = _FILE.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({"pid": os.getpid(), "revision": REVISION, "at": time.time()}))
    beside.replace(_FILE)
