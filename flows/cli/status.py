"""Commands that only look: how a release stands, what was, and whether an environment is ready."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import follow
from flows.cli.app import app
from flows.cli.options import EnvironmentOption, JsonOption, PlainOption, ReleaseOption
from flows.cli.output import console, failure, print_json
from flows.cli.session import with_database
from handlers.core import open_core
from handlers.database import migrate
from handlers.environment.load import load_environment
from handlers.environment.model import Environment
from handlers.erp import doctor
from handlers.errors import ExitCode, Refused
from handlers.phases import plan
from handlers.release.ledger import releases
from handlers.release.phase import FINISHED, Phase, Release, exit_code, short
from handlers.report import gather
from handlers.status import snapshot


@app.command()
def check(
    environment: EnvironmentOption,
    revision: Annotated[str | None, typer.Argument(help="Also check that this revision could go.")] = None,
    json: JsonOption = False,
) -> int:
    """Ask hosts, database and queue everything that must be true before a release; changes nothing."""

    async def go() -> int:
        async with open_core(load_environment(environment)) as core:
            checks = await plan.run_checks(core, revision)
        faults = [one.sentence for one in checks if not one.good]
        good = not faults
        if json:
            told = {"environment": core.environment.name, "good": good, "checks": checks}
            print_json(told if good else told | failure("; ".join(faults), ExitCode.REFUSED))
        else:
            for one in checks:
                console().print(f"{one.mark} {one.name:<12} {one.sentence}")
            console().print(
                "ready for a release" if good else "not ready: mend what failed, then check again"
            )
        return ExitCode.GOOD if good else ExitCode.REFUSED

    return asyncio.run(go())


@app.command("status")
def status_(
    environment: EnvironmentOption,
    release: ReleaseOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it until it has ended.")] = False,
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Show how the live or newest release stands: want beside have, and why it waits."""

    async def go(database: AsyncEngine, settings: Environment) -> int:
        await _has_ledger(database, settings)
        view = await snapshot.read(database, settings.name, release)
        if watch and not json and view.release is not None:
            until = FINISHED | {Phase.HELD}
            view = await follow.follow(
                database, settings.name, view.release.id, driver=None, out=console(plain=plain), until=until
            )
        elif json:
            print_json(view)
        else:
            console(plain=plain).print(follow.painted(view), end="")
        return exit_code(view.release.phase) if watch and view.release is not None else ExitCode.GOOD

    return asyncio.run(with_database(environment, go))


@app.command()
def history(
    environment: EnvironmentOption,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000)] = 20,
    json: JsonOption = False,
) -> int:
    """List the newest releases of an environment, newest first."""

    async def go(database: AsyncEngine, settings: Environment) -> int:
        await _has_ledger(database, settings)
        runs = await releases.history(database, settings.name, limit)
        if json:
            print_json({"environment": settings.name, "releases": runs})
            return ExitCode.GOOD
        for run in runs:
            moved = f"{short(run.from_revision)} -> {short(run.to_revision)}"
            console().print(f"{run.id:<14} {run.phase:<16} {moved}  {run.requested_by}: {run.reason}")
        if not runs:
            console().print(f"{settings.name} has had no release yet")
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, go))


@app.command("report")
def report_(
    environment: EnvironmentOption,
    release: ReleaseOption = None,
    json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the report itself.")] = False,
) -> int:
    """Write the verification report of a release again, from the ledger and the queue as they are now."""

    async def go() -> int:
        settings = load_environment(environment)
        async with open_core(settings) as core:
            await _has_ledger(core.database, settings)
            run = await _one(core.database, settings, release)
            written = await gather.write(core, run)
        if json:
            print_json({"release": run.id, "files": written})
        elif markdown:
            console().print(written["md"].read_text(encoding="utf-8"))
        else:
            for path in written.values():
                console().print(str(path))
        return ExitCode.GOOD

    return asyncio.run(go())


@app.command("doctor")
def doctor_(environment: EnvironmentOption, json: JsonOption = False) -> int:
    """Say what is odd about an environment: schema, redundant indexes, stuck events, stale locks."""

    async def go(database: AsyncEngine, _settings: Environment) -> int:
        findings = await doctor.examine(database)
        if json:
            print_json({"findings": findings})
        for one in findings if not json else []:
            console().print(f"{one.name:<12} {one.sentence}")
        if not findings and not json:
            console().print("nothing odd was found")
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, go))


async def _has_ledger(database: AsyncEngine, settings: Environment) -> None:
    if await migrate.pending(database):
        raise Refused(
            f"the ledger of {settings.name} is not there yet or older than this program: "
            f"run `runbook db upgrade -e {settings.name}`, or start a release, which does so itself"
        )


async def _one(database: AsyncEngine, settings: Environment, release: str | None) -> Release:
    if release is not None:
        return await releases.get(database, release)
    run = await releases.latest(database, settings.name)
    if run is None:
        raise Refused(f"{settings.name} has had no release yet")
    return run
