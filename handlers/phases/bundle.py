"""The bundle of `runbook doctor --bundle`: what a bug report needs, without secrets and without payloads."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from handlers.core import Core
from handlers.database import migrate
from handlers.database.jsonable import as_json, as_plain
from handlers.database.transaction import transaction
from handlers.environment import frozen
from handlers.environment.redact import known_secrets, redact, redact_text
from handlers.phases.examination import Examination
from handlers.queue import look
from handlers.release.ledger import releases
from handlers.state_folder import STATE
from handlers.status import snapshot
from handlers.status.past import PastRelease, current, past
from handlers.worker import roster

RELEASES = 20
LOGS = 5
LOG_BYTES_MAX = 200_000
"""Of each driver's log the end is kept."""
_REPORT_BYTES_MAX = 2_000_000


async def write(core: Core, examined: Examination | None, problem: str, path: Path) -> list[str]:
    """Write the bundle to *path*, a `.tar.gz` that only its owner can read; returns the names of its files.

    *examined* is None where the ledger is away: then *problem* says why, and the bundle has what this machine knows.
    Raises FileExistsError when the file is there already, and OSError when it cannot be written.
    """
    secrets = known_secrets(core.environment)
    files = [("environment.json", as_json(redact(as_plain(frozen.settings(core.environment)), secrets)))]
    if examined is None:
        files.append(("problem.txt", redact_text(problem, secrets)))
    else:
        files.append(("doctor.json", as_json(redact(as_plain(examined), secrets))))
        if not await migrate.pending(core.database):
            files += [
                (name, as_json(redact(as_plain(value), secrets))) for name, value in await _ledger(core)
            ]
    files += [(name, redact_text(text, secrets)) for name, text in _logs()]
    files += [(name, redact_text(text, secrets)) for name, text in await _report(core, examined)]
    _write(path, files)
    return [name for name, _ in files]


async def _ledger(core: Core) -> list[tuple[str, Any]]:
    name = core.environment.name
    async with transaction(core.database) as tx:
        known = await past(tx, name, RELEASES)
        counts = await look.counts(tx)
        workers = await roster.workers(tx) if await roster.is_there(tx) else []
        shown = current(known)
        phases = await releases.phase_records(tx, shown.release) if shown else []
    return [
        ("status.json", await snapshot.read(core.database, name)),
        ("history.json", [_past(each) for each in known]),
        ("phases.json", phases),
        ("queue.json", {str(status): count for status, count in counts.items()}),
        ("workers.json", workers),
    ]


def _past(each: PastRelease) -> dict[str, Any]:
    return {**as_plain(each.release), "kind": each.kind, "asked_because": each.asked_because}


def _logs() -> Iterator[tuple[str, str]]:
    """The ends of the newest logs of drivers on this machine. Their names do not tell the environment."""
    logs = sorted((STATE / "drivers").glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in logs[:LOGS]:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES_MAX))
            yield f"drivers/{path.name}", file.read().decode(errors="replace")


async def _report(core: Core, examined: Examination | None) -> list[tuple[str, str]]:
    """The newest report that was written on this machine for the release that runs."""
    if examined is None:
        return []
    async with transaction(core.database) as tx:
        shown = current(await past(tx, core.environment.name))
    path = core.environment.report_folder(shown.release.id) / "report.md" if shown else None
    if path is None or not path.is_file() or path.stat().st_size > _REPORT_BYTES_MAX:
        return []
    return [("report.md", path.read_text(encoding="utf-8", errors="replace"))]


def _write(path: Path, files: list[tuple[str, str]]) -> None:
    """Write it beside *path* first: whoever finds the bundle has a whole one, also when this process is killed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        at = int(temporary.stat().st_mtime)
        with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for name, text in files:
                content = text.encode()
                entry = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
                entry.size, entry.mode, entry.mtime = len(content), 0o600, at
                archive.addfile(entry, io.BytesIO(content))
        # A link never takes the place of a file that is there.
        path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
