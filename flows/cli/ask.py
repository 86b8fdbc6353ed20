"""The commands that ask something of a release that another process runs: hold and skip, and the way they ask."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import app
from flows.cli.carry import outcome, print_detached, run_driver, until_settled
from flows.cli.follow import start
from flows.cli.options import ByOption, EnvironmentOption, RunOptions, expand_options
from flows.cli.output import console, print_json, requester
from flows.cli.session import with_database
from handlers.database import migrate
from handlers.environment.load import env_option
from handlers.environment.model import Environment
from handlers.errors import ExitCode, Refused
from handlers.phases import begin
from handlers.phases.holding import is_carried
from handlers.release import due, lock
from handlers.release.decisions import Verb, raise_unless_allowed
from handlers.release.ledger import requests
from handlers.release.phase import Phase, Release, exit_code
from tasks.tools import tools

SEEN_SECONDS = 20.0
"""A living controller reads requests every second. One that has not read this for so long does not react."""
_POLL_SECONDS = 0.5
RequiredReason = Annotated[str, typer.Option("--reason", help="One sentence for the ledger and the report.")]


@app.command()
@expand_options
def hold(
    environment: EnvironmentOption, reason: RequiredReason, *, by: ByOption = "", run_options: RunOptions
) -> int:
    """Pause a release and leave things as they are: a deploy before its next group of hosts, all else at once."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        run = await _release(database, settings, Verb.HOLD)
        if await is_carried(database, run):
            return await ask(database, environment, run, Verb.HOLD, requester(by), reason, run_options)
        async with tools(run) as core:
            held = await begin.hold(core, run, by=requester(by), reason=reason)
        return await _print(database, held, run_options)

    return asyncio.run(with_database(environment, execute))


@app.command()
@expand_options
def skip(
    environment: EnvironmentOption, reason: RequiredReason, *, by: ByOption = "", run_options: RunOptions
) -> int:
    """End a canary, a drain or a watch without its result, by name and with a reason, and go on."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        run = await _release(database, settings, Verb.SKIP)
        if await is_carried(database, run):
            return await ask(database, environment, run, Verb.SKIP, requester(by), reason, run_options)
        await requests.ask(database, run, Verb.SKIP, by=requester(by), reason=reason)
        because = ["--because", f"resumed by {requester(by)}: {reason}"]
        return await run_driver(database, environment, run, "execute", because, run_options)

    return asyncio.run(with_database(environment, execute))


async def ask(
    database: AsyncEngine,
    environment: str,
    run: Release,
    verb: Verb,
    by: str,
    reason: str,
    run_options: RunOptions,
) -> int:
    """Ask the controller, wait until it has seen it, and follow the release to its end or hold.

    Raises Refused when the controller does not react.
    """
    request_id = await requests.ask(database, run, verb, by=by, reason=reason)
    deadline = time.monotonic() + SEEN_SECONDS
    while (await requests.get(database, request_id)).seen_at is None:
        if time.monotonic() > deadline:
            holder = await lock.holder(database, run.environment)
            name = holder.name if holder else "the controller"
            raise Refused(
                f"{name} has not seen the request for {SEEN_SECONDS:.0f} s. It stays in the ledger; to take over, run "
                f"`runbook rollback --take-over REASON --reason REASON`, or the same with `resume`"
            )
        await asyncio.sleep(_POLL_SECONDS)
    if not run_options.json:
        console(plain=run_options.plain).print(f"release {run.id}: its controller has seen the {verb}")
    return await follow_controller(database, environment, run, run_options)


async def follow_controller(
    database: AsyncEngine, environment: str, run: Release, run_options: RunOptions
) -> int:
    """Follow a release that another process carries, to its end or hold. Returns the exit code."""
    if run_options.detach:
        return ExitCode.GOOD
    out = None if run_options.json else console(plain=run_options.plain)
    try:
        ended = await until_settled(
            database, run, None, restart=lambda: start("execute", environment, run.id), out=out
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        reattach = f"runbook status --watch {env_option(environment)}"
        message = f"detached; release {run.id} continues. Re-attach with: {reattach}"
        return print_detached(run, message, json=run_options.json)
    return await _print(database, ended, run_options)


async def _release(database: AsyncEngine, settings: Environment, verb: Verb) -> Release:
    await migrate.upgrade_existing(database)
    run = await due.unfinished(database, settings.name)
    raise_unless_allowed(verb, run)
    return run


async def _print(database: AsyncEngine, run: Release, run_options: RunOptions) -> int:
    if run_options.json:
        print_json(await outcome(database, run))
    else:
        console(plain=run_options.plain).print(f"release {run.id}: {run.phase}. {run.reason}")
    return ExitCode.HELD if run.phase is Phase.HELD else exit_code(run.phase)
