"""The commands that show releases from the ledger: the state of one, and the history."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import follow, history_text
from flows.cli.app import app
from flows.cli.json_objects import History, Listed
from flows.cli.options import EnvironmentOption, JsonOption, PlainOption, ReleaseOption
from flows.cli.output import console, print_json
from flows.cli.session import raise_if_no_ledger, with_database
from handlers.database.transaction import transaction
from handlers.environment.model import Environment
from handlers.errors import LEDGER_AWAY, ExitCode
from handlers.release import due
from handlers.release.phase import FINISHED, Phase, Release, exit_code
from handlers.status import snapshot
from handlers.status.past import PastRelease, past


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
    except LEDGER_AWAY as error:
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
        async with transaction(database) as tx:
            known = await past(tx, settings.name, limit)
            cares = [await due.care(tx, each.release) for each in known]
        if json:
            print_json(History(environment=settings.name, releases=tuple(map(_listed, known, cares))))
            return ExitCode.GOOD
        for line in history_text.lines(known, cares):
            console().print(line)
        if not known:
            console().print(f"{settings.name} has had no release yet")
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, execute))


def _listed(each: PastRelease, care: due.Care) -> Listed:
    release = {field.name: getattr(each.release, field.name) for field in fields(Release)}
    return Listed(
        **release,
        kind=each.kind,
        asked_because=each.asked_because,
        approvals=each.approvals,
        carried=care.carried,
        uncarried_since=care.since,
    )
