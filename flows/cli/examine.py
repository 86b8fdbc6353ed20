"""The commands that look closely: readiness for a release, the report of one, and the doctor."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import from_hosts
from flows.cli.app import app
from flows.cli.options import EnvironmentOption, JsonOption, ReleaseOption
from flows.cli.output import console, failure, print_json
from flows.cli.session import raise_if_no_ledger, with_database
from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.environment.model import Environment
from handlers.erp import doctor
from handlers.errors import DatabaseDown, ExitCode, Refused
from handlers.phases import plan, upstream_pause
from handlers.release.ledger import releases
from handlers.release.phase import Release
from handlers.report import gather
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
        await raise_if_no_ledger(database, settings)
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
    """List problems of an environment: schema, redundant indexes, stuck events, an upstream that is away,
    releases that nobody carries."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        findings = await doctor.examine(database, settings.name)
        async with open_core(settings) as core:
            if away := await upstream_pause.away(core):
                findings.append(doctor.Problem(name="upstream", sentence=away))
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


async def _release(database: AsyncEngine, settings: Environment, release: str | None) -> Release:
    if release is not None:
        return await releases.get(database, release)
    run = await releases.latest(database, settings.name)
    if run is None:
        raise Refused(f"{settings.name} has had no release yet")
    return run
