"""The commands that inspect: readiness, the state of a release, the history, the report and the doctor."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import follow, from_hosts
from flows.cli.app import app
from flows.cli.options import EnvironmentOption, JsonOption, PlainOption, ReleaseOption
from flows.cli.output import console, failure, print_json
from flows.cli.session import with_database
from handlers.core import open_core
from handlers.database import migrate
from handlers.database.jsonable import as_plain
from handlers.environment.load import load_environment
from handlers.environment.model import Environment
from handlers.erp import doctor
from handlers.errors import DatabaseDown, ExitCode, Refused
from handlers.phases import plan
from handlers.release import due
from handlers.release.ledger import releases
from handlers.release.phase import FINISHED, Phase, Release, exit_code, short
from handlers.report import gather
from handlers.status import snapshot
from tasks.tools import tools


@app.command()
def check(
    environment: EnvironmentOption,
    revision: Annotated[
        str | None, typer.Argument(help="Also check that this revision can be released.")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Check hosts, database and queue before a release; changes nothing."""

    async def execute() -> int:
        async with open_core(load_environment(environment)) as core:
            checks = await plan.run_checks(core, revision)
        problems = [check.sentence for check in checks if not check.good]
        good = not problems
        if json:
            summary = {"environment": core.environment.name, "good": good, "checks": checks}
            print_json(summary if good else summary | failure("; ".join(problems), ExitCode.REFUSED))
        else:
            for check in checks:
                console().print(f"{check.mark} {check.name:<12} {check.sentence}")
            advice = f"Fix the failed checks and run `runbook check -e {environment}` again."
            console().print("Ready for a release." if good else f"Not ready. {advice}")
        return ExitCode.GOOD if good else ExitCode.REFUSED

    return asyncio.run(execute())


@app.command("status")
def status_(
    environment: EnvironmentOption,
    release: ReleaseOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep showing it until the release ends or is held.")
    ] = False,
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Show the current release: its phases, the wanted and running revisions, and what it waits for."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        await _raise_if_no_ledger(database, settings)
        view = await snapshot.read(database, settings.name, release)
        if watch and not json and view.release is not None:
            until = FINISHED | {Phase.HELD}
            view = await follow.follow(
                database, settings.name, view.release.id, driver=None, out=console(plain=plain), until=until
            )
        elif json:
            print_json(view)
        else:
            console(plain=plain).print(follow.colored(view), end="")
        return exit_code(view.release.phase) if watch and view.release is not None else ExitCode.GOOD

    try:
        return asyncio.run(with_database(environment, execute))
    except DatabaseDown as error:
        return from_hosts.show_hosts(environment, error, json=json)


@app.command()
def history(
    environment: EnvironmentOption,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=1000, help="How many releases to list.")
    ] = 20,
    json: JsonOption = False,
) -> int:
    """List the newest releases of an environment, newest first."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        await _raise_if_no_ledger(database, settings)
        runs = await releases.history(database, settings.name, limit)
        cares = [await due.care(database, run) for run in runs]
        if json:
            listed = [
                {**as_plain(run), "carried": care.carried, "uncarried_since": care.since}
                for run, care in zip(runs, cares, strict=True)
            ]
            print_json({"environment": settings.name, "releases": listed})
            return ExitCode.GOOD
        for run, care in zip(runs, cares, strict=True):
            revisions = f"{short(run.from_revision)} -> {short(run.to_revision)}"
            console().print(f"{run.id:<14} {run.phase:<16} {revisions}  {run.requested_by}: {run.reason}")
            if care.carried is False:
                console().print(f"{'':<14} {care.sentence}: runbook resume --due -e {settings.name}")
        if not runs:
            console().print(f"{settings.name} has had no release yet")
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, execute))


@app.command("report")
def report_(
    environment: EnvironmentOption,
    release: ReleaseOption = None,
    json: JsonOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the report instead of the paths of its files.")
    ] = False,
) -> int:
    """Write the verification report of a release again, from the current ledger and queue."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        await _raise_if_no_ledger(database, settings)
        run = await _release(database, settings, release)
        async with tools(run) as core:
            paths = await gather.write(core, run)
        if json:
            print_json({"release": run.id, "files": paths})
        elif markdown:
            console().print(paths["md"].read_text(encoding="utf-8"))
        else:
            for path in paths.values():
                console().print(str(path))
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, execute))


@app.command("doctor")
def doctor_(environment: EnvironmentOption, json: JsonOption = False) -> int:
    """List problems of an environment: schema, redundant indexes, stuck events, releases that nobody carries."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        findings = await doctor.examine(database, settings.name)
        if json:
            print_json({"findings": findings})
        for finding in findings if not json else []:
            console().print(f"{finding.name:<12} {finding.sentence}")
        if not findings and not json:
            console().print("no problem was found")
        return ExitCode.GOOD

    try:
        return asyncio.run(with_database(environment, execute))
    except DatabaseDown as error:
        return from_hosts.show_hosts(environment, error, json=json)


async def _raise_if_no_ledger(database: AsyncEngine, settings: Environment) -> None:
    if await migrate.pending(database):
        raise Refused(
            f"the ledger of {settings.name} is missing or outdated. "
            f"Run `runbook db upgrade -e {settings.name}`; a release does it too."
        )


async def _release(database: AsyncEngine, settings: Environment, release: str | None) -> Release:
    if release is not None:
        return await releases.get(database, release)
    run = await releases.latest(database, settings.name)
    if run is None:
        raise Refused(f"{settings.name} has had no release yet")
    return run
