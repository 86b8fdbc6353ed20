"""The verification report: what a release did, how it was judged, and how queue and tables stand after it.

`gather` makes it as JSON has it, from the ledger and the queue; `write` keeps it as JSON, Markdown and HTML.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Core
from handlers.database.jsonable import as_plain
from handlers.database.queries import queries
from handlers.database.sqlstate import message_of
from handlers.database.transaction import transaction
from handlers.entities.registry import HANDLERS
from handlers.host import logs
from handlers.queue import diagnose, look
from handlers.queue.event import ENTITY_TYPES
from handlers.release import left_behind
from handlers.release.ledger import intents, releases
from handlers.release.ledger.records import files, judgements, record_file
from handlers.release.phase import Phase, Release, exit_code
from handlers.report.files import keep, known_secrets, redact
from handlers.report.render import as_html, as_markdown
from handlers.status import snapshot

SQL = queries(__name__)
OUTPUT_MAX = 2000
"""Characters of an operation's output that the report shows; the ledger has more."""


async def write(core: Core, release: Release) -> dict[str, Path]:
    """Write the report in its three forms below the environment's reports folder, private, with checksums."""
    known = known_secrets(core.environment)
    report: dict[str, Any] = redact(await gather(core, release), known)
    texts = {
        "json": json.dumps(report, indent=2, ensure_ascii=False) + "\n",
        "md": as_markdown(report),
        "html": as_html(report),
    }
    written = {}
    for form, content in texts.items():
        path = core.environment.reports.directory / release.id / f"report.{form}"
        sha256 = await asyncio.to_thread(keep, path, content)
        await record_file(core.database, release, kind="report", path=str(path), sha256=sha256)
        written[form] = path
    return written


async def gather(core: Core, release: Release) -> dict[str, Any]:
    """Everything the report says, as JSON has it."""
    view = await snapshot.read(core.database, release.environment, release.id)
    now = view.release or release
    # Before the transaction: none is held across SSH.
    log_errors = await _log_errors(core, now)
    async with transaction(core.database) as tx:
        whose = {"release_id": now.id, "since": now.created_at}
        report = {
            "written_at": view.at,
            "release": now,
            "outcome": now.phase,
            "exit_code": int(exit_code(now.phase)),
            "why": now.reason,
            "seconds": ((now.finished_at or view.at) - now.created_at).total_seconds(),
            "hosts": view.hosts,
            "steps": view.steps,
            "batches": view.batches,
            "queue": {str(name): count for name, count in (await look.counts(tx)).items()},
            "dead_letters": await _dead_letters(tx, now),
            "left_behind": {"kinds": view.left_behind, "command": left_behind.command(now)},
            "types": await _by_entity(tx, "types", whose),
            "processing": await _by_entity(tx, "processing", whose),
            "errors": await _errors(tx),
            "log_errors": log_errors,
            "freshness": await _freshness(tx, view.at),
            "judgements": await judgements(tx, now),
            "operations": [_operation(one) for one in await intents.operations(tx, now)],
            "files": [
                {"path": _beside(core, now, file.path), "sha256": file.sha256}
                for file in await files(tx, now)
                if file.kind != "report"
            ],
        }
    plain: dict[str, Any] = as_plain(report)
    return plain


async def _dead_letters(tx: AsyncConnection, release: Release) -> dict[str, Any]:
    """The plan's dead letters by kind and fate, those never to be drained, and why some are left."""
    by_type: dict[str, dict[str, int]] = defaultdict(dict)
    totals = {"completed": 0, "failed": 0, "open": 0, "left": 0}
    for row in await tx.execute(SQL["planned"], {"release_id": release.id}):
        by_type[ENTITY_TYPES.get(row.entity_type, row.entity_type)][row.fate] = row.events
        totals[row.fate] += row.events
    plan = await releases.plan(tx, release.id)
    return {
        "planned": sum(totals.values()),
        "drained": totals["completed"] + totals["failed"] + totals["open"],
        **totals,
        "by_type": by_type,
        "set_aside": plan.set_aside,
        "why_left": f"{release.phase}: {release.reason}" if totals["left"] else "",
    }


async def _log_errors(core: Core, release: Release) -> dict[str, Any]:
    """Errors in the units' logs since the first deploy, and the logs that could not be had."""
    records = await releases.phase_records(core.database, release)
    deploys = [record.started_at for record in records if record.phase is Phase.DEPLOYING]
    if not deploys:
        return {"errors": [], "missing": []}
    found, missing = await logs.errors(core, deploys[0])
    return {"errors": found, "missing": missing}


async def _errors(tx: AsyncConnection) -> list[dict[str, Any]]:
    """The errors that stand in the queue, equal ones together, the most common first."""
    found: dict[str, dict[str, Any]] = {}
    for row in await tx.execute(SQL["errors"]):
        masked = diagnose.fingerprint(row.error or "") or "no error text"
        error = found.setdefault(
            masked, {"fingerprint": masked, "events": 0, "kinds": {}, "code": row.error_code}
        )
        error["events"] += row.events
        kind = f"{ENTITY_TYPES.get(row.raw_type, row.raw_type)} {row.status}"
        error["kinds"][kind] = error["kinds"].get(kind, 0) + row.events
    return sorted(found.values(), key=lambda error: -error["events"])


async def _freshness(tx: AsyncConnection, now: datetime) -> list[dict[str, Any]]:
    """When each target table was last written, where it exists and says so."""
    fresh = []
    for table in sorted(handler.table.name for handler in HANDLERS.values()):
        columns = list((await tx.execute(SQL["freshness_columns"], {"table": table})).scalars())
        if not columns:
            continue
        newest, note = await _newest(tx, table, columns)
        age = (now - newest).total_seconds() if newest is not None else None
        fresh.append({"table": table, "newest": newest, "age_seconds": age, "note": note})
    return fresh


async def _newest(tx: AsyncConnection, table: str, columns: list[str]) -> tuple[datetime | None, str]:
    found = []
    try:
        # A savepoint, so that a table that we may not read costs its own line and not the report.
        async with tx.begin_nested():
            for column in columns:
                # Names come from our own specs and the query above, never from outside.
                found.append((await tx.execute(text(f'SELECT max("{column}") FROM "{table}"'))).scalar())
    except DBAPIError as error:
        return None, message_of(error)
    # A naive column of the ERP holds UTC.
    aware = [one if one.tzinfo else one.replace(tzinfo=UTC) for one in found if one is not None]
    return max(aware, default=None), ""


async def _by_entity(tx: AsyncConnection, query: str, whose: dict[str, object]) -> list[dict[str, Any]]:
    """The rows of a query, with kinds of record by the name that people use, in the order of that name."""
    found = []
    for row in await tx.execute(SQL[query], whose):
        values = dict(row._mapping)
        raw = values.pop("raw_type")
        found.append({"entity": str(ENTITY_TYPES.get(raw, raw)), **values})
    return sorted(found, key=lambda values: (values["entity"], values.get("replayed", False)))


def _operation(operation: intents.OperationRecord) -> dict[str, Any]:
    ended = operation.finished_at
    seconds = (ended - operation.started_at).total_seconds() if ended else None
    return {
        "id": operation.id,
        "phase": operation.phase,
        "host": operation.host,
        "kind": operation.kind,
        "started_at": operation.started_at,
        "seconds": seconds,
        "outcome": operation.outcome or "not confirmed",
        "exit_status": operation.exit_status,
        "output": operation.output[-OUTPUT_MAX:],
    }


def _beside(core: Core, release: Release, path: str) -> str:
    """A file by its way from the report: the folder of both may be copied, moved and archived."""
    folder = core.environment.reports.directory / release.id
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path
