"""`runbook guard`: show the checks after a release, take those that are due, or end them. A timer takes them."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import resume_due
from flows.cli.app import app
from flows.cli.options import (
    ByOption,
    OptionalEnvironmentOption,
    ReasonOption,
    RunOptions,
    expand_options,
)
from flows.cli.output import console, print_json, requester
from flows.cli.resume_due import SEVERITY, Result
from flows.cli.session import open_database, raise_if_no_ledger, with_database
from flows.telling import telling
from handlers.database import migrate
from handlers.environment.last_good import last_good, names
from handlers.environment.model import Environment
from handlers.errors import ExitCode, Refused, RunbookError
from handlers.gate.values import Finding
from handlers.phases import guard
from handlers.release.ledger import guards, releases
from handlers.release.ledger.guards import Check, Guard
from handlers.release.phase import Phase
from tasks.tools import tools


@app.command("guard")
@expand_options
def guard_(
    release: Annotated[
        str | None, typer.Argument(help="Id of a release. Default: the one that was guarded last.")
    ] = None,
    *,
    environment: OptionalEnvironmentOption = None,
    is_due: Annotated[
        bool,
        typer.Option(
            "--due", help="Take the checks that are due: in one environment, or in all. For a timer."
        ),
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="End the guard; the ledger keeps who and why.")
    ] = False,
    page_only: Annotated[
        bool, typer.Option("--page-only", help="The checks go on, but a breach only pages: you roll back.")
    ] = False,
    by: ByOption = "",
    reason: ReasonOption = "",
    run_options: RunOptions,
) -> int:
    """Show the checks after a release: what they have found, and when the next ones are due."""
    if sum((is_due, stop, page_only)) > 1:
        raise Refused("--due, --stop and --page-only are three different commands: give one of them")
    if is_due:
        if release or by or reason:
            raise Refused("--due decides by itself: leave out the release, --by and --reason")
        return take_due(environment, run_options)
    if not environment:
        raise Refused("name the environment with --environment, or RUNBOOK_ENVIRONMENT")
    if reason and not (stop or page_only):
        raise Refused("--reason belongs to --stop or --page-only")

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        await raise_if_no_ledger(database, settings)
        id_ = release or await guards.newest(database, settings.name)
        if id_ is None:
            raise Refused(
                f"{settings.name} has had no guarded release: only a deploy that succeeds gets a guard"
            )
        if (of := (await releases.get(database, id_)).environment) != settings.name:
            raise Refused(f"release {id_} belongs to {of}, not to {settings.name}")
        if stop:
            await guards.stop(database, id_, by=requester(by), reason=reason)
        if page_only:
            await guards.page_only(database, id_, by=requester(by), reason=reason)
        return await _show(database, id_, run_options)

    return asyncio.run(with_database(environment, execute))


def take_due(environment: str | None, options: RunOptions) -> int:
    """Take what is due in one environment, or in all of the folder. Returns the worst exit code."""
    logging.basicConfig(level=logging.WARNING, format="runbook: %(message)s")
    environments = [environment] if environment else names()
    if not environments:
        raise Refused("there is no environment file: name one with --environment")
    return asyncio.run(_take_due(environments, options))


async def _take_due(environments: list[str], options: RunOptions) -> int:
    results = await asyncio.gather(
        *(_one(name, options, alone=len(environments) == 1) for name in environments)
    )
    code = max((result.exit_code for result in results), key=SEVERITY.index)
    if options.json:
        print_json({"environments": results, "exit_code": int(code)})
        return code
    for result in results:
        console(plain=options.plain).print(f"{result.environment}: {result.sentence}")
    return code


async def _one(environment: str, options: RunOptions, *, alone: bool) -> Result:
    """What is due in one environment. Its error is its result, so that it does not keep the others from theirs."""
    try:
        settings = await last_good(environment)
        async with telling(environment, timer=True), open_database(settings) as database:
            return await _take_in(database, environment, settings, options, alone=alone)
    except RunbookError as error:
        if alone and not options.json:
            raise
        sys.stderr.write(f"runbook: {environment}: {error}\n")
        return Result(environment=environment, exit_code=error.exit_code, sentence=str(error))


async def _take_in(
    database: AsyncEngine, environment: str, settings: Environment, options: RunOptions, *, alone: bool
) -> Result:
    name = settings.name
    nothing = Result(environment=name, exit_code=ExitCode.GOOD, sentence="no check is due")
    if not await migrate.upgrade_existing(database):
        return nothing
    guarded = await guards.open_guards(database, name)
    for id_, is_due in guarded.items():
        if not is_due and settings.upstream is not None:
            run = await releases.get(database, id_)
            async with tools(run) as core:
                await guard.ask_upstream(core, run)
    if not any(guarded.values()):
        return nothing
    # Imported here: a timer calls this command each minute, and Prefect takes longer to import than it has to do.
    from tasks.guard import take

    result = nothing
    for id_ in (id_ for id_, is_due in guarded.items() if is_due):
        taken = await take(await releases.get(database, id_))
        if taken is None:
            continue
        if taken.release.phase is Phase.ROLLING_BACK:
            return await resume_due.carry_on_in(
                database, environment, settings, options, shown=alone and not options.json
            )
        words = [taken.sentence] if taken.finding else []
        words += [f"it stands for {taken.skipped} overdue checks"] if taken.skipped else []
        words += [taken.reported] if taken.reported else []
        code = ExitCode.HELD if taken.finding is Finding.UNHEALTHY else ExitCode.GOOD
        finding = f"{taken.finding}: " if taken.finding else ""
        sentence = f"release {id_}: {finding}{'; '.join(words)}"
        result = Result(environment=name, exit_code=code, sentence=sentence, release=id_, due=True)
    return result


async def _show(database: AsyncEngine, release: str, options: RunOptions) -> int:
    found = await guards.get(database, release)
    if found is None:
        raise Refused(f"release {release} has no guard: only a deploy that succeeds gets one")
    checks = await guards.checks(database, release)
    if options.json:
        print_json({"guard": found, "checks": checks, "exit_code": 0})
        return ExitCode.GOOD
    out = console(plain=options.plain)
    out.print(f"release {release}: {_head(found)}")
    for check in checks:
        out.print(_line(check))
    return ExitCode.GOOD


def _head(guard: Guard) -> str:
    if guard.ended_at is not None:
        return f"guarded from {_time(guard.begun_at)} to {_time(guard.ended_at)}: {guard.ended}"
    only = f"; a breach only pages ({guard.pages_only_by}: {guard.pages_only})" if guard.pages_only_by else ""
    return f"guarded from {_time(guard.begun_at)} to {_time(guard.until)}{only}"


def _line(check: Check) -> str:
    if check.taken_at is None:
        return f" [due]     {_time(check.due_at)}  {check.kind}"
    state = "[skipped]" if check.skipped else "[done]   "
    finding = f"{check.finding}: " if check.finding else ""
    return f" {state} {_time(check.taken_at)}  {finding}{check.sentence}"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%d %H:%M}"
