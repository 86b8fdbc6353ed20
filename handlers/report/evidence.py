"""The evidence of a release: saved before a rollback, in ten seconds at most, private and with checksums.

It holds ids, keys and errors, not the customers' data: payloads stay in the queue.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from handlers.core import Core
from handlers.database.jsonable import as_plain
from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.host import logs
from handlers.queue.event import ENTITY_TYPES
from handlers.release.ledger import intents, records
from handlers.release.phase import Release
from handlers.report import files

SQL = queries(__name__)
LIMIT_SECONDS = 10.0
"""A rollback does not wait longer than this for its evidence."""
COLUMNS = (
    "event_id",
    "entity_type",
    "key",
    "status",
    "attempts",
    "error_code",
    "error",
    "batch",
    "created_at",
    "started_at",
    "replayed",
)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What could be saved, and what could not, with the reason. JSON-able by `asdict`."""

    folder: str
    files: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What was saved, for the ledger."""
        told = f"evidence: {len(self.files)} files in {self.folder}"
        return f"{told}; not saved: {'; '.join(self.missing)}" if self.missing else told


async def save(core: Core, release: Release, *, limit_seconds: float = LIMIT_SECONDS) -> Evidence:
    """Save what is known about the release. A piece that cannot be had is named: the rollback must go on."""
    parts: dict[str, Callable[[Core, Release, frozenset[str]], Awaitable[str]]] = {
        "judgements.json": _judgements,
        "operations.json": _operations,
        "events.csv": _events,
        "logs.txt": _logs,
    }
    known = files.known_secrets(core.environment)
    saved: dict[str, str] = {}
    missing: list[str] = []
    where = core.environment.reports.directory / release.id / "evidence"
    deadline = asyncio.get_running_loop().time() + limit_seconds
    for name, gather in parts.items():
        try:
            async with asyncio.timeout_at(deadline):
                text = await gather(core, release, known)
                if not text:
                    continue
                saved[name] = await asyncio.to_thread(files.keep, where / name, text)
                await records.record_file(
                    core.database, release, kind="evidence", path=str(where / name), sha256=saved[name]
                )
        except TimeoutError:
            missing.append(f"{name}: not within {limit_seconds:g} s")
        except (
            Exception
        ) as error:  # One piece that cannot be saved must stop neither the others nor the rollback.
            missing.append(f"{name}: {error}".splitlines()[0])
    if saved:
        sums = "".join(f"{sha256}  {name}\n" for name, sha256 in saved.items())
        await asyncio.to_thread(files.keep, where / "SHA256SUMS", sums)
    return Evidence(folder=str(where), files=tuple(saved), missing=tuple(missing))


async def _judgements(core: Core, release: Release, known: frozenset[str]) -> str:
    return _pretty(await records.judgements(core.database, release), known)


async def _operations(core: Core, release: Release, known: frozenset[str]) -> str:
    return _pretty(await intents.operations(core.database, release), known)


async def _events(core: Core, release: Release, known: frozenset[str]) -> str:
    async with transaction(core.database) as tx:
        rows = await tx.execute(SQL["failed_events"], {"release_id": release.id, "since": release.created_at})
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        for row in rows:
            values = list(row)
            values[1] = ENTITY_TYPES.get(row.raw_type, row.raw_type)
            writer.writerow([_csv_cell(files.redact(value, known)) for value in values])
        return table.getvalue()


async def _logs(core: Core, release: Release, known: frozenset[str]) -> str:
    """What the units wrote since the release began; a log that cannot be had is named in its place."""
    found = await logs.extracts(core, release.created_at, core.clock.now())
    return str(files.redact(logs.as_text(found), known))


def _csv_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: keys and errors come from outside."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _pretty(values: object, known: frozenset[str]) -> str:
    return json.dumps(files.redact(as_plain(values), known), indent=2, ensure_ascii=False) + "\n"
