"""The report of a release: what it did, how it was judged, and the current state of the queue and the tables.

`gather` collects it as JSON values from the ledger and the queue; `write` stores it as JSON, Markdown and HTML.
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
from handlers.environment.redact import known_secrets, redact
from handlers.host import logs
from handlers.queue import diagnose, look
from handlers.queue.event import ENTITY_TYPES
from handlers.release import left_behind
from handlers.release.ledger import intents, releases
from handlers.release.ledger.records import files, record_file, stretches
from handlers.release.phase import Phase, Release, exit_code
from handlers.report.files import folder_of, keep
from handlers.report.render import as_html, as_markdown
from handlers.status import snapshot

SQL = queries(__name__)
OUTPUT_MAX = 2000
"""Characters of an operation's output in the report; the ledger has more."""


async def write(core: Core, release: Release) -> dict[str, Path]:
    """Write the report in three formats to the environment's reports folder, private and with checksums.

    Returns the path of each format: json, md, html.
    """
    known = known_secrets(core.environment)
    report: dict[str, Any] = redact(await gather(core, release), known)
    texts = {
        "json": json.dumps(report, indent=2, ensure_ascii=False) + "\n",
        "md": as_markdown(report),
        "html": as_html(report),
    }
    paths = {}
    for format_, content in texts.items():
        path = folder_of(core.environment, release.id) / f"report.{format_}"
        sha256 = await asyncio.to_thread(keep, core.environment, path, content)
        await record_file(core.database, release, kind="report", path=str(path), sha256=sha256)
        paths[format_] = path
    return paths


async def gather(core: Core, release: Release) -> dict[str, Any]:
    """The content of the report as JSON values."""
    view = await snapshot.read(core.database, release.environment, release.id)
    current = view.release or release
    # Before the transaction: no transaction stays open across SSH.
    log_errors = await _log_errors(core, current)
    async with transaction(core.database) as tx:
        selection = {"release_id": current.id, "since": current.created_at}
        report = {
            "written_at": view.at,
            "release": current,
            "outcome": current.phase,
            "exit_code": int(exit_code(current.phase)),
            "why": current.reason,
            "seconds": ((current.finished_at or view.at) - current.created_at).total_seconds(),
            "hosts": view.hosts,
            "returns": view.returns,
            "steps": view.steps,
            "batches": view.batches,
            "queue": {str(name): count for name, count in (await look.counts(tx)).items()},
            "dead_letters": await _dead_letters(tx, current),
            "left_behind": {"kinds": view.left_behind, "command": left_behind.command(current)},
            "types": await _by_entity(tx, "by_type", selection),
            "processing": await _by_entity(tx, "processing", selection),
            "errors": await _errors(tx),
            "log_errors": log_errors,
            "around": view.around,
            "freshness": await _freshness(tx, view.at),
            "judgements": await stretches(tx, current),
            "operations": [_operation(operation) for operation in await intents.operations(tx, current)],
            "files": [
                {"path": _relative(core, current, file.path), "sha256": file.sha256}
                for file in await files(tx, current)
                if file.kind != "report"
            ],
        }
    plain: dict[str, Any] = as_plain(report)
    return plain


async def _dead_letters(tx: AsyncConnection, release: Release) -> dict[str, Any]:
    """The planned dead letters by type and outcome, the set aside ones, and why some were not drained."""
    by_type: dict[str, dict[str, int]] = defaultdict(dict)
    totals = {"completed": 0, "failed": 0, "open": 0, "left": 0}
    for row in await tx.execute(SQL["planned"], {"release_id": release.id}):
        by_type[ENTITY_TYPES.get(row.entity_type, row.entity_type)][row.fate] = row.events
        totals[row.fate] += row.events
    plan = await releases.plan(tx, release.id)
    aside = releases.set_aside(await releases.phase_records(tx, release))
    unexplained = totals["left"] > sum(aside.values())
    return {
        "planned": sum(totals.values()),
        "drained": totals["completed"] + totals["failed"] + totals["open"],
        **totals,
        "by_type": by_type,
        # First what no plan contains, then what the drain has left.
        "set_aside": {**plan.set_aside, **aside},
        "why_left": f"{release.phase}: {release.reason}" if unexplained else "",
    }


async def _log_errors(core: Core, release: Release) -> dict[str, Any]:
    """Errors in the units' logs since the first deploy, and the logs that could not be read."""
    records = await releases.phase_records(core.database, release)
    deploys = [record.started_at for record in records if record.phase is Phase.DEPLOYING]
    if not deploys:
        return {"errors": [], "missing": []}
    errors, missing = await logs.errors(core, deploys[0])
    return {"errors": errors, "missing": missing}


async def _errors(tx: AsyncConnection) -> list[dict[str, Any]]:
    """The errors in the queue, grouped by fingerprint, the most common first."""
    errors: dict[str, dict[str, Any]] = {}
    for row in await tx.execute(SQL["errors"]):
        masked = diagnose.fingerprint(row.error or "") or "no error text"
        error = errors.setdefault(
            masked, {"fingerprint": masked, "events": 0, "kinds": {}, "code": row.error_code}
        )
        error["events"] += row.events
        kind = f"{ENTITY_TYPES.get(row.raw_type, row.raw_type)} {row.status}"
        error["kinds"][kind] = error["kinds"].get(kind, 0) + row.events
    return sorted(errors.values(), key=lambda error: -error["events"])


async def _freshness(tx: AsyncConnection, now: datetime) -> list[dict[str, Any]]:
    """The age of the newest row of each target table that has time columns."""
    tables = []
    for table in sorted(handler.table.name for handler in HANDLERS.values()):
        columns = list((await tx.execute(SQL["freshness_columns"], {"table": table})).scalars())
        if not columns:
            continue
        newest, note = await _newest(tx, table, columns)
        age = (now - newest).total_seconds() if newest is not None else None
        tables.append({"table": table, "newest": newest, "age_seconds": age, "note": note})
    return tables


async def _newest(tx: AsyncConnection, table: str, columns: list[str]) -> tuple[datetime | None, str]:
    times = []
    try:
        # A savepoint, so that a table without read permission fails its own line and not the report.
        async with tx.begin_nested():
            for column in columns:
                # No SQL injection: names come from our own specs and the query above.
                times.append((await tx.execute(text(f'SELECT max("{column}") FROM "{table}"'))).scalar())
    except DBAPIError as error:
        return None, message_of(error)
    # A column of the ERP without a time zone holds UTC.
    aware = [time if time.tzinfo else time.replace(tzinfo=UTC) for time in times if time is not None]
    return max(aware, default=None), ""


async def _by_entity(tx: AsyncConnection, query: str, selection: dict[str, object]) -> list[dict[str, Any]]:
    """The rows of a query, with the readable name of their entity type, sorted by it."""
    rows = []
    for row in await tx.execute(SQL[query], selection):
        values = dict(row._mapping)
        raw = values.pop("raw_type")
        rows.append({"entity": str(ENTITY_TYPES.get(raw, raw)), **values})
    return sorted(rows, key=lambda values: (values["entity"], values.get("replayed", False)))


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


def _relative(core: Core, release: Release, path: str) -> str:
    """The path relative to the report, so that the folder of both can be moved or archived."""
    folder = folder_of(core.environment, release.id)
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path
