"""A rehearsal: a whole release on a temporary target on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import follow
from flows.cli.plan_text import lines
from flows.local.server import prefect_settings, temporary_server
from handlers.core import open_core
from handlers.database.transaction import transaction
from handlers.environment.load import load_environment
from handlers.errors import Refused
from handlers.phases.begin import record_release
from handlers.phases.plan import make_plan
from handlers.queue import look
from handlers.release.ledger import records, releases
from handlers.release.phase import Phase, Release, exit_code, short
from handlers.state_folder import STATE, private_folder
from rehearsal import processes
from rehearsal.target import Target
from rehearsal.webhooks.traffic import traffic

EXIT_CODES = {"good": 0, "sick": 2, "treacherous": 2, "slow": 2, "empty": 0, "failed-only": 4}
"""The expected exit code of each story."""
SPEED = 60.0
"""Runbook seconds for each real second: the watch of thirty minutes takes thirty seconds."""
TRAFFIC_PER_SECOND = 3.0
TRAFFIC_PHASE = Phase.WATCHING
"""The phase that starts the live webhooks. Before it only the backlog tests the revision."""


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
    reason: str
    hosts: dict[str, str | None]
    """The revision that each host's health answer names; None where no process answers."""
    revisions: dict[str, str]
    events: dict[str, int]
    report: str | None
    kept: str | None


async def rehearse(
    story: str, *, speed: float = SPEED, keep: bool = False, out: Console | None
) -> RehearsalResult:
    """Create a target, release the story's revision to it, inspect the outcome, and remove the target."""
    started_at = time.monotonic()

    def print_line(line: str) -> None:
        if out is not None:
            out.print(line)

    print_line(f"rehearsal of story {story}: starting a database, two hosts with the broken ERP, and Prefect")
    async with AsyncExitStack() as stack:

        async def start_prefect(target: Target) -> None:
            # The end of the rehearsal stops every process with this marker, even if our own process was killed.
            os.environ[processes.MARKER] = target.id
            folder = target.folder / "prefect"
            server = temporary_server(folder, template=STATE / "templates")
            os.environ.update(prefect_settings(folder, await stack.enter_async_context(server)))

        target = await stack.enter_async_context(Target.create(story, keep=keep, beside=start_prefect))
        setup_seconds = time.monotonic() - started_at
        print_line(f"ready after {setup_seconds:.0f} s; releasing {story} ({short(target.revision)})")
        result = await _release(target, speed, out, started_at)
        if keep:
            # With --json stdout has only JSON, but the user must still learn how to end the kept target.
            print_line(target.describe()) if out is not None else print(target.describe(), file=sys.stderr)
        return result


async def _release(target: Target, speed: float, out: Console | None, started_at: float) -> RehearsalResult:
    settings = load_environment(str(target.environment_path))
    release_started_at = time.monotonic()
    async with open_core(settings) as core:
        plan = await make_plan(core, target.revision)
        if out is not None:
            for line in lines(plan):
                out.print(line)
        if not plan.good:
            raise Refused(plan.refusal)
        run = await record_release(
            core, plan, requested_by="rehearsal", reason=f"rehearsal of story {target.story}", speed=speed
        )
        driver = follow.start("execute", str(target.environment_path), run.id)
        async with _live_traffic(target, core.database, run):
            view = await follow.follow(core.database, run.environment, run.id, driver=driver, out=out)
        assert view.release is not None
        seconds = time.monotonic() - release_started_at
        return await _inspect(target, core.database, view.release, seconds=seconds, started_at=started_at)


async def _inspect(
    target: Target, database: AsyncEngine, run: Release, *, seconds: float, started_at: float
) -> RehearsalResult:
    """Read the outcome from the hosts and the queue, independently of what the release recorded."""
    async with transaction(database) as tx:
        counts = await look.counts(tx)
    hosts = {}
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        for host in target.hosts:
            hosts[host.name] = await _running_revision(http, host.health_url)
    code = exit_code(run.phase)
    return RehearsalResult(
        story=target.story,
        release=run.id,
        outcome=run.phase,
        exit_code=int(code),
        seconds=round(seconds, 1),
        seconds_in_all=round(time.monotonic() - started_at, 1),
        reason=run.reason,
        hosts=hosts,
        revisions=target.revisions,
        events={str(status): count for status, count in counts.items()},
        report=await _kept_report(target, database, run),
        kept=target.id if target.keep else None,
    )


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


REPORTS_KEPT = 10


@asynccontextmanager
async def _live_traffic(target: Target, database: AsyncEngine, run: Release) -> AsyncIterator[None]:
    stop = asyncio.Event()

    async def send() -> None:
        while (await releases.get(database, run.id)).phase is not TRAFFIC_PHASE:
            if stop.is_set():
                return
            await asyncio.sleep(0.2)
        engine = target.engine()
        try:
            await traffic(engine, stop, TRAFFIC_PER_SECOND)
        finally:
            await engine.dispose()

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        stop.set()
        sending.cancel()
        await asyncio.wait({sending})
