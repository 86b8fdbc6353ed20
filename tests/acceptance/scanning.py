"""Looking for planted secrets in everything that a release wrote, and in the process list while it ran."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from rehearsal.sentinels import MARK

_NEEDLE = MARK.encode() + b"-"
_PAUSE_SECONDS = 0.1


async def in_ledger(connection: asyncpg.Connection) -> list[str]:
    """The columns of our tables that contain a planted secret."""
    columns = await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'runbook'"
    )
    found = []
    for table, column in columns:
        hits = await connection.fetchval(
            f'SELECT count(*) FROM runbook."{table}" WHERE "{column}"::text LIKE $1', f"%{MARK}-%"
        )
        found += [f"runbook.{table}.{column}"] * bool(hits)
    return found


def in_files(*folders: Path) -> list[str]:
    """The files in *folders* that contain a planted secret."""
    return [str(path) for folder in folders for path in files(folder) if _NEEDLE in path.read_bytes()]


def files(folder: Path) -> Iterator[Path]:
    """Every regular file below *folder*."""
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


class ProcessList:
    """Reads the command lines of all processes again and again, as anybody on the machine may."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProcessList:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.looks += 1
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    command = file.read_bytes()
                except OSError:
                    continue
                # git itself gives the address of its remote to its helper; that is the host's setting, not ours.
                if _NEEDLE in command and b"remote-http" not in command:
                    self.found.add(command.decode(errors="replace").replace("\0", " "))
            time.sleep(_PAUSE_SECONDS)
