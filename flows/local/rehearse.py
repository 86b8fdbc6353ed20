"""A rehearsal: a whole release on a temporary target on this machine, with the faults that were asked for."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID

from rich.console import Console

from flows.cli import follow
from flows.cli.plan_text import lines
from flows.local.outcome import Course, RehearsalResult, inspect
from flows.local.server import prefect_settings, temporary_server
from flows.local.stage import live_traffic, turn_of
from flows.local.under_faults import UnderFaults
from handlers.core import Core, open_core
from handlers.environment.load import load_environment
from handlers.phases.begin import record_release
from handlers.phases.plan import make_plan
from handlers.release.phase import Release, short
from handlers.release.preflight import failure_of
from handlers.state_folder import STATE
from rehearsal import processes
from rehearsal.faults.fault import Fault, Kind
from rehearsal.hosts.host import Strategy
from rehearsal.pace import SPEED
from rehearsal.story import Story
from rehearsal.target import HOSTS, Target

EXIT_CODES = {story.value: story.exit_code for story in Story}
"""The expected exit code of each story."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What to rehearse."""

    story: str
    speed: float = SPEED
    keep: bool = False
    hosts: int = HOSTS
    strategy: Strategy = "checkout"
    faults: Sequence[Fault] = ()
    seed: int | None = None
    """The number that drew the faults."""


async def rehearse(wanted: Rehearsal, *, out: Console | None) -> RehearsalResult:
    """Create a target, release the story's revision to it, inspect the outcome, and remove the target."""

    def print_line(line: str) -> None:
        if out is not None:
            out.print(line)

    print_line(
        f"rehearsal of story {wanted.story}: starting a database, {wanted.hosts} hosts with the broken ERP, and Prefect"
    )
    async with AsyncExitStack() as stack:

        async def start_prefect(target: Target) -> None:
            # The end of the rehearsal stops every process with this marker, even if our own process was killed.
            os.environ[processes.MARKER] = target.id
            folder = target.folder / "prefect"
            server = temporary_server(folder, template=STATE / "templates")
            os.environ.update(prefect_settings(folder, await stack.enter_async_context(server)))

        target = await stack.enter_async_context(
            Target.create(
                wanted.story,
                keep=wanted.keep,
                beside=start_prefect,
                hosts=wanted.hosts,
                strategy=wanted.strategy,
                cables=bool(wanted.faults),
                small_disks=any(fault.kind is Kind.DISK_FULL for fault in wanted.faults),
                speed=wanted.speed,
            )
        )
        print_line(
            f"ready after {target.age_seconds:.0f} s; releasing {wanted.story} ({short(target.revision)})"
        )
        result = await _release(target, wanted, out)
        if wanted.keep:
            # With --json stdout has only JSON, but the user must still learn how to end the kept target.
            print_line(target.describe()) if out is not None else print(target.describe(), file=sys.stderr)
        return result


async def _release(target: Target, wanted: Rehearsal, out: Console | None) -> RehearsalResult:
    settings = load_environment(str(target.environment_path))
    started_at = time.monotonic()
    received: list[UUID] = []
    async with open_core(settings) as core, AsyncExitStack() as stack:
        # Webhooks come in before the plan is made, and until the end of the release, also while it goes back.
        async with live_traffic(target, received):
            ended, faults = await _carry(target, wanted, core, stack, out)
        course = Course(
            seconds=time.monotonic() - started_at,
            received=received,
            faults=faults.as_json() if faults is not None else (),
            seed=wanted.seed,
            wrong=faults.wrong if faults is not None else (),
        )
        return await inspect(target, settings, core.database, ended, course)


async def _carry(
    target: Target, wanted: Rehearsal, core: Core, stack: AsyncExitStack, out: Console | None
) -> tuple[Release, UnderFaults | None]:
    """Plan the release and carry it to its end."""
    plan = await make_plan(core, target.revision)
    if out is not None:
        for line in lines(plan):
            out.print(line)
    if not plan.good:
        raise failure_of(plan.checks)
    run = await record_release(
        core,
        plan,
        requested_by="rehearsal",
        reason=f"rehearsal of story {target.story}",
        speed=wanted.speed,
    )
    async with turn_of(target, run.id):
        if not wanted.faults:
            driver = follow.start("execute", str(target.environment_path), run.id)
            view = await follow.follow(core.database, run.environment, run.id, driver=driver, out=out)
            assert view.release is not None
            return view.release, None
        faults = await stack.enter_async_context(UnderFaults.open(target, run, wanted.faults))
        return await faults.release(core.database, out), faults
