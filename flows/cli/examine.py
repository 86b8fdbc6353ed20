"""The commands that look closely: readiness for a release, the report of one, and the doctor."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import app
from flows.cli.json_objects import ReportFiles
from flows.cli.options import EnvironmentOption, JsonOption, ReleaseOption
from flows.cli.output import console, failure, print_json
from flows.cli.session import raise_if_no_ledger, with_database
from handlers.core import open_core
from handlers.environment.load import env_option, load_environment
from handlers.environment.model import Environment
from handlers.errors import ExitCode, Refused
from handlers.phases import plan
from handlers.release.ledger import releases
from handlers.release.phase import Release
from handlers.release.preflight import failure_of
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
        good = all(check.good for check in checks)
        problem = failure_of(checks)
        if json:
            summary = {"environment": core.environment.name, "good": good, "checks": checks}
            print_json(summary if good else summary | failure(str(problem), problem.exit_code))
        else:
            for check in checks:
                console().print(f"{check.mark} {check.name:<12} {check.sentence}")
            advice = f"Fix the failed checks and run `runbook check {env_option(environment)}` again."
            console().print("Ready for a release." if good else f"Not ready. {advice}")
        return ExitCode.GOOD if good else problem.exit_code

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
            print_json(ReportFiles(release=run.id, files=paths))
        elif markdown:
            console().print(paths["md"].read_text(encoding="utf-8"))
        else:
            for path in paths.values():
                console().print(str(path))
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, execute))


async def _release(database: AsyncEngine, settings: Environment, release: str | None) -> Release:
    if release is not None:
        return await releases.get(database, release)
    run = await releases.latest(database, settings.name)
    if run is None:
        raise Refused(f"{settings.name} has had no release yet")
    return run
