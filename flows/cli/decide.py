"""Commands by which a person decides about a release, or about a revision that was left."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import app
from flows.cli.carry import carry, must_be_free
from flows.cli.options import (
    ByOption,
    EnvironmentOption,
    JsonOption,
    ReleaseOption,
    RunOptions,
    TakeOverOption,
    YesOption,
    expand_options,
)
from flows.cli.output import console, person, print_json
from flows.cli.session import with_database
from handlers.environment.model import Environment
from handlers.errors import ExitCode
from handlers.phases import begin
from handlers.release.ledger import records, releases
from handlers.release.phase import short

WhyOption = Annotated[str, typer.Option("--reason", help="Why, in one sentence.")]


@app.command()
@expand_options
def resume(environment: EnvironmentOption, *, take_over: TakeOverOption = "", going: RunOptions) -> int:
    """Go on with a release that is held, or whose controller died, from the phase in the ledger."""

    async def go(database: AsyncEngine, settings: Environment) -> int:
        run = await releases.unfinished(database, settings.name)
        await must_be_free(database, settings.name, take_over=take_over)
        return await carry(database, environment, run, "carry_out", [], going, take_over=take_over)

    return asyncio.run(with_database(environment, go))


@app.command()
@expand_options
def rollback(
    environment: EnvironmentOption,
    reason: WhyOption,
    *,
    by: ByOption = "",
    yes: YesOption = False,
    take_over: TakeOverOption = "",
    going: RunOptions,
) -> int:
    """Take the newest release back to the revision before it, on every host, and prove it."""

    async def go(database: AsyncEngine, settings: Environment) -> int:
        run = await begin.rollback_candidate(database, settings.name)
        await must_be_free(database, settings.name, take_over=take_over)
        told = f"roll {settings.name} back from {short(run.to_revision)} to {short(run.from_revision)}"
        if not yes and not going.json:
            typer.confirm(f"{told} ({reason})?", abort=True)
        words = ["--by", person(by), "--reason", reason]
        return await carry(database, environment, run, "roll_back", words, going, take_over=take_over)

    return asyncio.run(with_database(environment, go))


@app.command()
def abort(
    environment: EnvironmentOption,
    reason: WhyOption,
    release: ReleaseOption = None,
    by: ByOption = "",
    json: JsonOption = False,
) -> int:
    """End a planned or held release without doing anything more; what is deployed stays deployed."""

    async def go(database: AsyncEngine, settings: Environment) -> int:
        run = (
            await releases.get(database, release)
            if release
            else await releases.unfinished(database, settings.name)
        )
        ended = await begin.abort(database, run, by=person(by), reason=reason)
        if json:
            print_json({"release": ended.id, "phase": ended.phase, "exit_code": 0})
        else:
            console().print(
                f"release {ended.id} is aborted; {short(ended.to_revision)} stays where it is deployed"
            )
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, go))


@app.command()
def lift(
    environment: EnvironmentOption,
    revision: Annotated[
        str, typer.Argument(help="The revision that was left: its commit, or how it begins.")
    ],
    by: Annotated[
        str, typer.Option("--by", help="The person who answers for it; the ledger keeps the name.")
    ],
    json: JsonOption = False,
) -> int:
    """Let a revision that a rollback left be released again; needs the name of a person."""

    async def go(database: AsyncEngine, settings: Environment) -> int:
        lifted = await records.lift(database, settings.name, revision, lifted_by=by)
        if json:
            print_json({"environment": settings.name, "revision": lifted, "lifted_by": by, "exit_code": 0})
        else:
            console().print(f"{by} lets revision {short(lifted)} be released to {settings.name} again")
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, go))
