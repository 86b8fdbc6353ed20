"""What a report contains, as JSON values: the state of a place, and what a release of it did and decided.

`gather` collects both for a release, `gather_place` the state alone. Markdown and HTML are made of what they return.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from handlers.core import Core
from handlers.database.jsonable import as_plain
from handlers.database.sqlstate import message_of
from handlers.database.transaction import transaction
from handlers.environment.redact import known_secrets, redact
from handlers.errors import LEDGER_AWAY, RunbookError
from handlers.gate.day_before import DayBefore
from handlers.host import logs
from handlers.measurements import everything
from handlers.measurements.everything import Survey
from handlers.measurements.measurement import State
from handlers.release import left_behind
from handlers.release.ledger import intents, releases
from handlers.release.ledger.records import files, judgements, record_file, stretches
from handlers.release.phase import Phase, Release, exit_code
from handlers.report import hosts_now, sections, sums, verdict
from handlers.report.files import folder_of, keep
from handlers.report.guard_part import guard_part
from handlers.report.render import as_html, as_markdown
from handlers.report.sections import Span
from handlers.report.verdict import HostState
from handlers.status import snapshot

OUTPUT_MAX = 2000
"""Characters of an operation's output in the report; the ledger has more."""
QUEUE_SECONDS = 30.0
"""How long the sections of the queue may take. Real seconds."""


async def write(core: Core, release: Release) -> dict[str, Path]:
    """Write the report in three formats to the environment's reports folder, private and with checksums.

    Returns the path of each format: json, md, html.
    """
    report: dict[str, Any] = redact(await gather(core, release), known_secrets(core.environment))
    paths = {}
    for format_, content in (await asyncio.to_thread(texts, report)).items():
        path = folder_of(core.environment, release.id) / f"report.{format_}"
        sha256 = await asyncio.to_thread(keep, core.environment, path, content)
        await record_file(core.database, release, kind="report", path=str(path), sha256=sha256)
        paths[format_] = path
    return paths


def texts(report: dict[str, Any]) -> dict[str, str]:
    """The report in each format, all of them from one gathered value."""
    return {
        "json": json.dumps(report, indent=2, ensure_ascii=False) + "\n",
        "md": as_markdown(report),
        "html": as_html(report),
    }


async def gather_place(core: Core, *, seconds: float) -> dict[str, Any]:
    """The state of an environment over the last *seconds*, as JSON values. Never raises what a source raises."""
    survey, hosts = await asyncio.gather(
        everything.survey(core, ago_seconds=seconds), hosts_now.ask_all(core)
    )
    report: dict[str, Any] = {
        **_place(core, survey, hosts),
        "release": None,
        "log_errors": _new_errors(survey),
    }
    if survey.at is not None:
        span = Span(since=survey.at - timedelta(seconds=seconds), until=survey.at)
        report |= await _sections(core, span)
    plain: dict[str, Any] = as_plain(report)
    return plain


async def gather(core: Core, release: Release) -> dict[str, Any]:
    """The content of a release's report as JSON values."""
    view = await snapshot.read(core.database, release.environment, release.id)
    current = view.release or release
    # Before the transaction: no transaction stays open across SSH or HTTP.
    log_errors, survey, hosts = await asyncio.gather(
        _log_errors(core, current),
        everything.survey(core, release=current),
        hosts_now.ask_all(core),
    )
    place = _place(core, survey, hosts)
    place |= await _sections(core, Span(since=current.created_at, until=view.at, release=current))
    async with transaction(core.database) as tx:
        plan = await releases.plan(tx, current.id)
        letters = await sections.dead_letters(tx, current)
        judged = await judgements(tx, current)
        report = place | {
            "written_at": view.at,
            "release": current,
            "outcome": current.phase,
            "exit_code": int(exit_code(current.phase)),
            "why": current.reason,
            "requested_because": await sections.requested_because(tx, current),
            "seconds": ((current.finished_at or view.at) - current.created_at).total_seconds(),
            "next": verdict.next_steps(
                current,
                need=view.need,
                left=letters["left"] + letters["failed"],
                left_behind=left_behind.command(current) if view.left_behind else "",
                quarantined=any(each["revision"] == current.to_revision for each in place["quarantined"]),
                verification=place["verification"],
                can_sync=core.environment.zoho is not None,
            ),
            "commits": plan.commits,
            "hosts": view.hosts,
            "returns": view.returns,
            "approvals": view.start.approval.given if view.start.approval else (),
            "overrides": view.start.overrides,
            "pull_request": view.start.pull_request,
            "steps": view.steps,
            "batches": view.batches,
            "dead_letters": letters,
            "left_behind": {"kinds": view.left_behind, "command": left_behind.command(current)},
            "before_after": _before_after(plan.day_before, place),
            "guard": await guard_part(tx, current),
            "log_errors": log_errors,
            "around": view.around,
            "judgements": await stretches(tx, current),
            "sums": await asyncio.to_thread(sums.of_decisions, judged),
            "operations": [_operation(operation) for operation in await intents.operations(tx, current)],
            "files": [
                {"path": _relative(core, current, file.path), "sha256": file.sha256}
                for file in await files(tx, current)
                if file.kind != "report"
            ],
        }
    plain: dict[str, Any] = as_plain(report)
    return plain


def _place(core: Core, survey: Survey, hosts: list[HostState]) -> dict[str, Any]:
    """The verdict and the checks, without what the queue tells of its window."""
    name = core.environment.name
    return {
        "environment": name,
        "written_at": survey.at,
        "verification": verdict.verify(name, survey.measurements, hosts),
        "checks": survey.measurements,
        "hosts_now": hosts,
        "freshness": survey.freshness,
        "bars": {
            "success_percent": core.environment.bars.success_percent,
            "queue_depth": core.environment.bars.queue_depth,
            "oldest_seconds": core.environment.bars.oldest_seconds,
        },
        "problem": "",
        **{
            key: []
            for key in ("types", "processing", "errors", "letters", "course", "moments", "quarantined")
        },
        **dict.fromkeys(("queue", "window", "all_processing")),
    }


async def _sections(core: Core, span: Span) -> dict[str, Any]:
    """What the queue tells; where it cannot be asked, why."""
    try:
        async with asyncio.timeout(QUEUE_SECONDS), transaction(core.database) as tx:
            return {
                **await sections.of_queue(tx, span),
                "moments": await sections.moments(tx, core.environment.name, span),
                "quarantined": await sections.quarantined(tx, core.environment.name),
            }
    except TimeoutError:
        return {"problem": f"the queue could not be read within {QUEUE_SECONDS:g} s"}
    except DBAPIError as error:
        return {"problem": f"the queue could not be read: {message_of(error)}"}
    except (*LEDGER_AWAY, RunbookError) as error:
        return {"problem": f"the queue could not be read: {error}"}


async def _log_errors(core: Core, release: Release) -> dict[str, Any]:
    """Errors in the units' logs since the first deploy, and the logs that could not be read."""
    records = await releases.phase_records(core.database, release)
    deploys = [record.started_at for record in records if record.phase is Phase.DEPLOYING]
    if not deploys:
        return {"errors": [], "missing": []}
    errors, missing = await logs.errors(core, deploys[0])
    return {"errors": errors, "missing": missing}


def _new_errors(survey: Survey) -> dict[str, Any]:
    """Without a release: what is new in the logs since the beginning of the window."""
    down = [
        each
        for each in survey.measurements
        if each.name == "new_signatures" and each.state is State.SOURCE_DOWN
    ]
    return {
        "errors": [
            {"lines": each.count, "new": True, "fingerprint": each.fingerprint, "where": each.where}
            for each in survey.signatures
        ],
        "missing": [f"{each.subject}: {each.sentence}" for each in down],
    }


def _before_after(before: DayBefore | None, place: dict[str, Any]) -> list[dict[str, Any]]:
    """Each kind of record on the day before the release and since: success and the time for 90 or 95 % of it."""
    if before is None or not place["types"]:
        return []
    since: dict[str, dict[str, int]] = {}
    for row in place["types"]:
        counts = since.setdefault(row["entity"], {"completed": 0, "failed": 0})
        counts["completed"] += row["completed"]
        counts["failed"] += row["failed"]
    times = {row["entity"]: row["applying_p95"] for row in place["processing"]}
    rows = []
    for entity in sorted({*since, *before.types}):
        day, counts = before.types.get(entity), since.get(entity, {"completed": 0, "failed": 0})
        ended = counts["completed"] + counts["failed"]
        if ended or (day is not None and day.units):
            rows.append(
                {
                    "entity": entity,
                    "before_events": day.units if day else 0,
                    "before_percent": 100 * day.ok if day and day.units else None,
                    "before_p90": day.latency_s[1] if day and day.latency_s else None,
                    "after_events": ended,
                    "after_percent": 100 * counts["completed"] / ended if ended else None,
                    "after_p95": times.get(entity),
                }
            )
    return rows


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
