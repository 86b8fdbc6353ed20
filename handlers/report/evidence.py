"""The evidence of a release: saved before a rollback, in at most ten seconds, private and with checksums.

It contains ids, keys and errors, but no customer data: payloads stay in the queue.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from handlers.core import Core
from handlers.database.jsonable import as_plain
from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.environment.redact import known_secrets, redact
from handlers.host import logs
from handlers.queue.as_csv import as_csv
from handlers.queue.event import ENTITY_TYPES
from handlers.release.ledger import intents, records
from handlers.release.phase import Release
from handlers.report import files

SQL = queries(__name__)
LIMIT_SECONDS = 10.0
"""A rollback waits no longer than this for its evidence."""
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


Part = Callable[[Core, Release, frozenset[str]], Awaitable[str]]
"""Makes the text of one file; an empty text is not saved."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The saved files, and the missing ones with the reason. Ready for JSON by `asdict`."""

    folder: str
    files: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The number of files, their folder and what is missing, for the ledger."""
        saved = f"evidence: {len(self.files)} files in {self.folder}"
        return f"{saved}; not saved: {'; '.join(self.missing)}" if self.missing else saved


async def save(core: Core, release: Release, *, limit_seconds: float = LIMIT_SECONDS) -> Evidence:
    """Save judgements, operations, failed events and logs of the release.

    Never raises: the rollback must continue. A file that cannot be saved is listed as missing.
    """
    known = known_secrets(core.environment)
    saved: dict[str, str] = {}
    missing: list[str] = []
    folder = files.folder_of(core.environment, release.id) / "evidence"
    deadline = asyncio.get_running_loop().time() + limit_seconds

    async def save_part(name: str, gather: Part) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                text = await gather(core, release, known)
                if not text:
                    return
                saved[name] = await asyncio.to_thread(files.keep, core.environment, folder / name, text)
                await records.record_file(
                    core.database, release, kind="evidence", path=str(folder / name), sha256=saved[name]
                )
        except TimeoutError:
            missing.append(f"{name}: not within {limit_seconds:g} s")
        except Exception as error:  # One missing file must stop neither the others nor the rollback.
            missing.append(f"{name}: {error}".splitlines()[0])

    # At the same time: a database that hangs must not take the time of the logs, which come from the hosts.
    await asyncio.gather(*(save_part(name, gather) for name, gather in PARTS.items()))
    if saved:
        sums = "".join(f"{sha256}  {name}\n" for name, sha256 in saved.items())
        await asyncio.to_thread(files.keep, core.environment, folder / "SHA256SUMS", sums)
    return Evidence(folder=str(folder), files=tuple(saved), missing=tuple(missing))


async def _judgements(core: Core, release: Release, known: frozenset[str]) -> str:
    return _pretty(await records.judgements(core.database, release), known)


async def _operations(core: Core, release: Release, known: frozenset[str]) -> str:
    return _pretty(await intents.operations(core.database, release), known)


async def _events(core: Core, release: Release, known: frozenset[str]) -> str:
    async with transaction(core.database) as tx:
        rows = await tx.execute(SQL["failed_events"], {"release_id": release.id, "since": release.created_at})
        cells = []
        for row in rows:
            values = list(row)
            values[1] = ENTITY_TYPES.get(row.raw_type, row.raw_type)
            cells.append([redact(value, known) for value in values])
        return as_csv(COLUMNS, cells)


async def _logs(core: Core, release: Release, known: frozenset[str]) -> str:
    """The logs of the units since the release began. The text names a log that could not be read."""
    extracts = await logs.extracts(core, release.created_at)
    return str(redact(logs.as_text(extracts), known))


PARTS: dict[str, Part] = {
    "judgements.json": _judgements,
    "operations.json": _operations,
    "events.csv": _events,
    "logs.txt": _logs,
}


def _pretty(values: object, known: frozenset[str]) -> str:
    return json.dumps(redact(as_plain(values), known), indent=2, ensure_ascii=False) + "\n"
