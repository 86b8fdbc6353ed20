"""A rehearsal: a whole release on a real target on this machine, which is there only for it."""

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
from flows.local.state import STATE
from handlers.core import open_core
from handlers.database.transaction import transaction
from handlers.environment.load import load_environment
from handlers.errors import Refused
from handlers.phases.begin import record_release
from handlers.phases.plan import make_plan
from handlers.queue import look
from handlers.release.ledger import records, releases
from handlers.release.phase import Phase, Release, exit_code, short
from rehearsal import processes
from rehearsal.target import Target
from rehearsal.traffic import traffic

ENDS = {"good": 0, "sick": 2, "treacherous": 2, "slow": 2, "empty": 0, "failed-only": 4}
"""The exit code with which each story ends when everything is as it should be."""
SPEED = 60.0
"""Runbook seconds in a real one: the thirty minutes of the watch pass in thirty seconds."""
TRAFFIC_PER_SECOND = 3.0
TRAFFIC_PHASE = Phase.WATCHING
"""Live webhooks begin with the watch: before it the backlog alone tells what the revision does."""


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """How a rehearsal ended; what `--json` prints."""

    story: str
    release: str
    outcome: Phase
    exit_code: int
    seconds: float
    """Of the release itself, from its plan to its end."""
    seconds_in_all: float
    """With the making of the target."""
    reason: str
    hosts: dict[str, str | None]
    """The revision that the running process of each host names, and null where none answers."""
    revisions: dict[str, str]
    events: dict[str, int]
    report: str | None
    kept: str | None


async def rehearse(story: str, *, speed: float = SPEED, keep: bool = False, out: Console | None) -> Rehearsed:
    """Make a target, release the story's revision into it, look at what is true afterwards, take it away."""
    began = time.monotonic()

    def say(sentence: str) -> None:
        if out is not None:
            out.print(sentence)

    say(f"rehearsal of story {story}: starting a database, two hosts with the broken ERP, and Prefect")
    async with AsyncExitStack() as stack:

        async def start_prefect(target: Target) -> None:
            # Everything that carries this mark is ended with the rehearsal, whatever happens to us.
            os.environ[processes.MARKER] = target.id
            folder = target.folder / "prefect"
            server = temporary_server(folder, template=STATE / "templates")
            os.environ.update(prefect_settings(folder, await stack.enter_async_context(server)))

        target = await stack.enter_async_context(Target.create(story, keep=keep, beside=start_prefect))
        say(f"ready after {time.monotonic() - began:.0f} s; releasing {story} ({short(target.revision)})")
        done = await _release(target, speed, out, began)
        if keep:
            # With --json stdout is for programs alone, but whoever keeps a target must still learn how to end it.
            say(target.describe()) if out is not None else print(target.describe(), file=sys.stderr)
        return done


async def _release(target: Target, speed: float, out: Console | None, began: float) -> Rehearsed:
    settings = load_environment(str(target.environment_path))
    started = time.monotonic()
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
        driver = follow.start("carry_out", str(target.environment_path), run.id)
        async with _live_traffic(target, core.database, run):
            view = await follow.follow(core.database, run.environment, run.id, driver=driver, out=out)
        assert view.release is not None
        seconds = time.monotonic() - started
        return await _what_is_true(target, core.database, view.release, seconds=seconds, began=began)


async def _what_is_true(
    target: Target, database: AsyncEngine, run: Release, *, seconds: float, began: float
) -> Rehearsed:
    """Ask the hosts and the queue themselves, not the release."""
    async with transaction(database) as tx:
        counts = await look.counts(tx)
    hosts = {}
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        for host in target.hosts:
            hosts[host.name] = await _running(http, host.health_url)
    code = exit_code(run.phase)
    return Rehearsed(
        story=target.story,
        release=run.id,
        outcome=run.phase,
        exit_code=int(code),
        seconds=round(seconds, 1),
        seconds_in_all=round(time.monotonic() - began, 1),
        reason=run.reason,
        hosts=hosts,
        revisions=target.revisions,
        events={str(status): count for status, count in counts.items()},
        report=await _kept_report(target, database, run),
        kept=target.id if target.keep else None,
    )


async def _running(http: httpx.AsyncClient, url: str) -> str | None:
    try:
        answer = (await http.get(url)).json()
    except (httpx.HTTPError, ValueError):
        return None
    revision = answer.get("revision") if isinstance(answer, dict) else None
    return revision if isinstance(revision, str) else None


async def _kept_report(target: Target, database: AsyncEngine, run: Release) -> str | None:
    """The report outlives the target: a copy of its folder, the newest rehearsal's in place of the one before."""
    files = [file for file in await records.files(database, run) if file.kind == "report"]
    if not files:
        return None
    source = Path(files[-1].path).parent
    copy = STATE / "rehearsals" / f"{target.story}-{target.id}"
    await asyncio.to_thread(_copy, source, copy)
    return str(copy / "report.md")


def _copy(source: Path, copy: Path) -> None:
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copytree(source, copy, dirs_exist_ok=True)
    others = sorted(copy.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in others[REPORTS_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


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
