"""The outcome of a rehearsal, read from hosts, queue and ledger independently of what the release recorded."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.transaction import transaction
from handlers.environment.model import Environment
from handlers.queue import look
from handlers.release.ledger import records, releases
from handlers.release.phase import Phase, Release, exit_code
from handlers.state_folder import STATE, private_folder
from rehearsal.consistency.check import REST_SECONDS, check
from rehearsal.target import Target

REPORTS_KEPT = 10


@dataclass(frozen=True, kw_only=True)
class RehearsalResult:
    """The result of a rehearsal, as `--json` prints it."""

    story: str
    release: str
    outcome: Phase
    exit_code: int
    seconds: float
    """The duration of the release, from its plan to its end."""
    seconds_in_all: float
    """The same with the setup of the target."""
    phase_seconds: dict[str, float]
    """The time in each phase, by the database's clock."""
    reason: str
    hosts: dict[str, str | None]
    """The revision that each host's health answer names; None where no process answers."""
    revisions: dict[str, str]
    events: dict[str, int]
    received: int
    """Live webhooks that came in, from before the plan to the end."""
    damaged: int
    """Of these, those that the released workers took and never completed."""
    quarantined: bool
    """Whether the released revision is in quarantine."""
    faults: tuple[dict[str, Any], ...]
    """Each fault: what was broken, when, and when it was mended; or that its moment never came."""
    seed: int | None
    """The number that drew the faults."""
    consistent: bool
    """Whether hosts, ledger and queue agree, with no event lost or applied twice."""
    inconsistencies: tuple[str, ...]
    report: str | None
    kept: str | None


@dataclass(frozen=True, kw_only=True)
class Course:
    """What happened around the release."""

    seconds: float
    received: Sequence[UUID] = ()
    """The live webhooks that the queue has accepted."""
    faults: Sequence[dict[str, Any]] = ()
    seed: int | None = None
    wrong: Sequence[str] = ()
    """What must not happen, and was seen while the release ran."""


async def inspect(
    target: Target, settings: Environment, database: AsyncEngine, run: Release, course: Course
) -> RehearsalResult:
    """Read the outcome, and compare hosts, ledger and queue."""
    consistency = await check(
        target,
        database,
        run.id,
        sent=course.received,
        window_seconds=settings.watch.window_seconds,
        rest_seconds=REST_SECONDS + 2 * len(target.hosts),
    )
    async with transaction(database) as tx:
        counts = await look.counts(tx)
    hosts = {}
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        for host in target.hosts:
            hosts[host.name] = await _running_revision(http, host.health_url)
    inconsistencies = (*course.wrong, *consistency.disagreements)
    return RehearsalResult(
        story=target.story,
        release=run.id,
        outcome=run.phase,
        exit_code=int(exit_code(run.phase)),
        seconds=round(course.seconds, 1),
        seconds_in_all=round(target.age_seconds, 1),
        phase_seconds=await _phase_seconds(database, run),
        reason=run.reason,
        hosts=hosts,
        revisions=target.revisions,
        events={str(status): count for status, count in counts.items()},
        received=len(course.received),
        damaged=consistency.damaged,
        quarantined=consistency.is_quarantined,
        faults=tuple(course.faults),
        seed=course.seed,
        consistent=not inconsistencies,
        inconsistencies=inconsistencies,
        report=await _kept_report(target, database, run),
        kept=target.id if target.keep else None,
    )


async def _phase_seconds(database: AsyncEngine, run: Release) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for record in await releases.phase_records(database, run):
        if record.finished_at is not None:
            spent = (record.finished_at - record.started_at).total_seconds()
            seconds[record.phase] = round(seconds.get(record.phase, 0) + spent, 2)
    return seconds


async def _running_revision(http: httpx.AsyncClient, url: str) -> str | None:
    try:
        answer = (await http.get(url)).json()
    except (httpx.HTTPError, ValueError):
        return None
    revision = answer.get("revision") if isinstance(answer, dict) else None
    return revision if isinstance(revision, str) else None


async def _kept_report(target: Target, database: AsyncEngine, run: Release) -> str | None:
    """Copy the folder of the report, which must outlive the target; returns the path of the copied report."""
    files = [file for file in await records.files(database, run) if file.kind == "report"]
    if not files:
        return None
    source = Path(files[-1].path).parent
    copy = STATE / "rehearsals" / f"{target.story}-{target.id}"
    await asyncio.to_thread(_copy, source, copy)
    return str(copy / "report.md")


def _copy(source: Path, copy: Path) -> None:
    private_folder(copy.parent)
    shutil.copytree(source, copy, dirs_exist_ok=True)
    newest_first = sorted(copy.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for outdated in newest_first[REPORTS_KEPT:]:
        shutil.rmtree(outdated, ignore_errors=True)
