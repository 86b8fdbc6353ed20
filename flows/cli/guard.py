"""`runbook guard`: show the checks after a release, take those that are due, or end them. A timer takes them."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import guard_text
from flows.cli.app import app
from flows.cli.everywhere import Place, Result, in_each
from flows.cli.options import (
    ByOption,
    OptionalEnvironmentOption,
    ReasonOption,
    RunOptions,
    expand_options,
)
from flows.cli.output import console, print_json, requester
from flows.cli.session import raise_if_no_ledger, with_database
from handlers.database import migrate
from handlers.environment.model import Environment
from handlers.errors import ExitCode, Refused
from handlers.gate.values import Finding
from handlers.release.ledger import guards, releases
from handlers.release.phase import Phase


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

    async def act(place: Place) -> Result:
        return await _take_in(place, options)

    return in_each(environment, options, act)


async def _take_in(place: Place, options: RunOptions) -> Result:
    database, settings, name = place.database, place.settings, place.settings.name
    nothing = Result(environment=name, exit_code=ExitCode.GOOD, sentence="no check is due")
    if not await migrate.upgrade_existing(database):
        return nothing
    guarded = await guards.open_guards(database, name)
    for id_, is_due in guarded.items():
        if not is_due and settings.upstream is not None:
            # Imported here, as below.
            from handlers.phases import guard
            from tasks.tools import tools

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
            from flows.cli.resume_due import carry_on_in

            return await carry_on_in(place, options)
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
    out.print(f"release {release}: {guard_text.head(found)}")
    for line in guard_text.lines(checks):
        out.print(line)
    return ExitCode.GOOD
