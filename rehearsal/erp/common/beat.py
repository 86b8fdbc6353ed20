# mypy: ignore-errors
"""The workers' sign of life: a file that says which process works, and at which revision."""

import asyncio
import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import asyncpg
from revision import REVISION

FRESH_SECONDS = 10.0
_FILE = Path(__file__).resolve().parent / "var" / "worker.json"
_ended = threading.Event()


def start(owner: str = "") -> None:
    """Touch the file each second from a thread of its own. *owner*: not before this worker of the core is at work."""
    _FILE.parent.mkdir(exist_ok=True)
    if not owner:
        _write()
    threading.Thread(target=_go_on, args=(owner,), daemon=True).start()


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


def _go_on(owner: str) -> None:
    while owner and not asyncio.run(_is_at_work(owner)):
        if _ended.wait(0.3):
            return
    if owner:
        _write()
    while not _ended.wait(1):
        # A full disk is no reason to give no sign of life for ever after.
        with contextlib.suppress(OSError):
            _write()


async def _is_at_work(owner: str) -> bool:
    """Whether the core's worker has written its first heartbeat."""
    connection = None
    try:
        connection = await asyncpg.connect(os.environ["ERP_DATABASE_URL"], timeout=2, command_timeout=2)
        return bool(
            await connection.fetchval(
                "SELECT EXISTS (SELECT FROM runbook.worker WHERE starts_with(owner, $1) AND stopped_at IS NULL)",
                f"{owner}-",
            )
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    finally:
        if connection is not None:
            connection.terminate()


def _write() -> None:
    beside = _FILE.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({"pid": os.getpid(), "revision": REVISION, "at": time.time()}))
    beside.replace(_FILE)
