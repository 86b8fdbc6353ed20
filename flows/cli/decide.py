"""The commands for the operator's decisions: roll back, abort, and unblock a revision. And what `resume` does."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import ask, from_hosts
from flows.cli.app import app
from flows.cli.carry import adopt_file, raise_if_locked, run_driver
from flows.cli.options import (
    ByOption,
    EnvironmentOption,
    JsonOption,
    PastMigrationsOption,
    ReleaseOption,
    RunOptions,
    TakeOverOption,
    UseFileOption,
    YesOption,
    expand_options,
)
from flows.cli.output import confirm, console, print_json, requester
from flows.cli.session import with_database
from handlers.database import migrate
from handlers.environment.model import Environment
from handlers.errors import DatabaseDown, ExitCode, Refused
from handlers.phases import approve, begin, one_way
from handlers.phases.holding import is_carried
from handlers.release import due
from handlers.release.decisions import Verb, raise_unless_allowed
from handlers.release.ledger import records, releases
from handlers.release.phase import LIVE, Phase, Release, short
from tasks.tools import tools

RequiredReasonOption = Annotated[
    str, typer.Option("--reason", help="One sentence for the ledger and the report.")
]


def continue_release(
    environment: str,
    release: str | None,
    *,
    by: str,
    reason: str,
    take_over: str,
    use_file: bool,
    run_options: RunOptions,
) -> int:
    """Continue a release from the phase in the ledger, and follow it."""
    because = f"resumed by {requester(by)}" + (f": {reason}" if reason else "")

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        await migrate.upgrade_existing(database)
        run = await _of_environment(database, settings.name, release, Verb.RESUME)
        if why := await approve.why_waiting(database, run):
            raise Refused(why)
        await raise_if_locked(database, settings.name, take_over=take_over)
        if use_file:
            await adopt_file(database, run, by=requester(by), json=run_options.json)
        options = ["--because", because]
        return await run_driver(
            database, environment, run, "execute", options, run_options, take_over=take_over
        )

    return asyncio.run(with_database(environment, execute))


@app.command()
@expand_options
def rollback(
    environment: EnvironmentOption,
    reason: RequiredReasonOption,
    *,
    by: ByOption = "",
    yes: YesOption = False,
    take_over: TakeOverOption = "",
    without_database: Annotated[
        bool,
        typer.Option("--from-hosts", help="Without the database: go back to what the hosts themselves name."),
    ] = False,
    use_file: UseFileOption = False,
    no_quarantine: Annotated[
        bool, typer.Option("--no-quarantine", help="The revision is not at fault: it may be released again.")
    ] = False,
    past_migrations: PastMigrationsOption = False,
    run_options: RunOptions,
) -> int:
    """Roll the newest release back: deploy the previous revision on every host, and prove it."""
    if without_database:
        return from_hosts.roll_back(
            environment,
            reason=reason,
            requested_by=requester(by),
            yes=yes,
            use_file=use_file,
            json=run_options.json,
        )

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        async with tools(settings.name) as core:
            run = await begin.rollback_candidate(core)
            await one_way.raise_if_one_way(core.database, run, past_migrations=past_migrations)
        question = f"roll {settings.name} back from {short(run.to_revision)} to {short(run.from_revision)}"
        confirm(f"{question} ({reason})?", yes=yes)
        if run.phase is Phase.ROLLING_BACK and not take_over and await is_carried(database, run):
            return await ask.follow_controller(database, environment, run, run_options)
        running = run.phase in LIVE - {Phase.HELD, Phase.ROLLING_BACK}
        if running and not take_over and await is_carried(database, run):
            # Of a running release the two differ in nothing else; an abort blames nothing.
            verb = Verb.ABORT if no_quarantine else Verb.ROLLBACK
            return await ask.ask(database, environment, run, verb, requester(by), reason, run_options)
        await raise_if_locked(database, settings.name, take_over=take_over)
        if use_file:
            await adopt_file(database, run, by=requester(by), json=run_options.json)
        options = ["--by", requester(by), "--reason", reason, *(["--no-blame"] if no_quarantine else [])]
        options += ["--past-migrations"] if past_migrations else []
        return await run_driver(
            database, environment, run, "roll_back", options, run_options, take_over=take_over
        )

    try:
        return asyncio.run(with_database(environment, execute))
    except DatabaseDown as error:
        raise DatabaseDown(
            f"{error}. Without it, `runbook rollback --from-hosts` goes back to what the hosts themselves name"
        ) from error


@app.command()
@expand_options
def abort(
    environment: EnvironmentOption,
    reason: RequiredReasonOption,
    *,
    release: ReleaseOption = None,
    by: ByOption = "",
    past_migrations: PastMigrationsOption = False,
    run_options: RunOptions,
) -> int:
    """End a release: back to the previous revision where hosts were changed. To leave things as they are, hold it."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        await migrate.upgrade_existing(database)
        run = await _of_environment(database, settings.name, release, Verb.ABORT)
        async with tools(run) as core:
            goes_back = run.phase in LIVE and await begin.changed_hosts(core, run)
            if goes_back:
                await one_way.raise_if_one_way(core.database, run, past_migrations=past_migrations)
        if await is_carried(database, run):
            return await ask.ask(database, environment, run, Verb.ABORT, requester(by), reason, run_options)
        async with tools(run) as core:
            if goes_back:
                options = ["--by", requester(by), "--reason", f"aborted: {reason}", "--no-blame"]
                options += ["--past-migrations"] if past_migrations else []
                return await run_driver(database, environment, run, "roll_back", options, run_options)
            aborted = await begin.abort(core, run, by=requester(by), reason=reason)
        if run_options.json:
            print_json({"release": aborted.id, "phase": aborted.phase, "exit_code": 0})
        else:
            console().print(f"release {aborted.id} is aborted; no host was changed")
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, execute))


@app.command("lift", hidden=True)
@app.command("unblock")
def unblock(
    environment: EnvironmentOption,
    revision: Annotated[
        str, typer.Argument(help="The rolled-back revision: its commit id, or the first digits of it.")
    ],
    by: Annotated[str, typer.Option("--by", help="Name of the responsible person, for the ledger.")],
    json: JsonOption = False,
) -> int:
    """Take a rolled-back revision out of quarantine, so that it can be released again."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        lifted = await records.lift(database, settings.name, revision, lifted_by=by)
        if json:
            print_json({"environment": settings.name, "revision": lifted, "lifted_by": by, "exit_code": 0})
        else:
            console().print(
                f"revision {short(lifted)} may be released to {settings.name} again (unblocked by {by})"
            )
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, execute))


async def _of_environment(
    database: AsyncEngine, environment: str, release: str | None, verb: Verb
) -> Release:
    """The release with this id, otherwise the unfinished one. Raises Refused where *verb* means nothing for it."""
    run = await releases.get(database, release) if release else await due.unfinished(database, environment)
    if run.environment != environment:
        raise Refused(f"release {run.id} belongs to {run.environment}, not to {environment}")
    raise_unless_allowed(verb, run)
    return run
