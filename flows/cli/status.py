"""The commands that show releases from the ledger: the state of one, and the history."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import follow
from flows.cli.app import app
from flows.cli.options import EnvironmentOption, JsonOption, PlainOption, ReleaseOption
from flows.cli.output import console, print_json
from flows.cli.session import raise_if_no_ledger, with_database
from handlers.database.jsonable import as_plain
from handlers.environment.model import Environment
from handlers.errors import DatabaseDown, ExitCode
from handlers.release import due
from handlers.release.ledger import releases
from handlers.release.phase import FINISHED, Phase, exit_code, short
from handlers.status import snapshot


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
        await raise_if_no_ledger(database, settings)
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
        # Imported here: it needs SSH, which takes longer to import than the status takes.
        from flows.cli import from_hosts

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
        await raise_if_no_ledger(database, settings)
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
