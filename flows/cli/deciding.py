"""Commands by which a person decides about a release, or about a revision that was left."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import (
    ByOption,
    DetachOption,
    EnvironmentOption,
    JsonOption,
    PlainOption,
    PrefectOption,
    ReleaseOption,
    TakeOverOption,
    YesOption,
    app,
)
from flows.cli.carrying import carry, must_be_free, options_of, unfinished
from flows.cli.output import console, person, print_json
from flows.cli.session import with_database
from handlers import beginning, ledger
from handlers.config import Environment
from handlers.errors import ExitCode
from handlers.release import short

WhyOption = Annotated[str, typer.Option("--reason", help="Why, in one sentence.")]


@app.command()
def resume(
    environment: EnvironmentOption,
    take_over: TakeOverOption = "",
    without_prefect: PrefectOption = False,
    detach: DetachOption = False,
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Go on with a release that is held, or whose controller died, from the phase in the ledger."""

    async def go(database: AsyncEngine, settings: Environment) -> int:
        run = await unfinished(database, settings.name)
        await must_be_free(database, settings.name, take_over=take_over)
        options = options_of(without_prefect=without_prefect, take_over=take_over)
        return await carry(
            database, environment, run, "carry_out", options, detach=detach, json=json, plain=plain
        )

    return asyncio.run(with_database(environment, go))


@app.command()
def rollback(
    environment: EnvironmentOption,
    reason: WhyOption,
    by: ByOption = "",
    take_over: TakeOverOption = "",
    without_prefect: PrefectOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Take the newest release back to the revision before it, on every host, and prove it."""

    async def go(database: AsyncEngine, settings: Environment) -> int:
        run = await beginning.rollback_candidate(database, settings.name)
        await must_be_free(database, settings.name, take_over=take_over)
        told = f"roll {settings.name} back from {short(run.to_revision)} to {short(run.from_revision)}"
        if not yes and not json:
            typer.confirm(f"{told} ({reason})?", abort=True)
        options = options_of(without_prefect=without_prefect, take_over=take_over)
        words = ["--by", person(by), "--reason", reason, *options]
        return await carry(
            database, environment, run, "roll_back", words, detach=False, json=json, plain=plain
        )

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
        run = await ledger.get(database, release) if release else await unfinished(database, settings.name)
        ended = await beginning.abort(database, run, by=person(by), reason=reason)
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
        lifted = await ledger.lift(database, settings.name, revision, lifted_by=by)
        if json:
            print_json({"environment": settings.name, "revision": lifted, "lifted_by": by, "exit_code": 0})
        else:
            console().print(f"{by} lets revision {short(lifted)} be released to {settings.name} again")
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, go))
