"""The commands for a plan that waits for approval: approve it, or reject it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import app
from flows.cli.carry import outcome, run_driver
from flows.cli.options import ByOption, EnvironmentOption, JsonOption, RunOptions, expand_options
from flows.cli.output import account, console, print_json, requester
from flows.cli.session import with_database
from flows.telling import telling
from handlers.database import migrate
from handlers.environment.model import Environment
from handlers.errors import ExitCode, Refused
from handlers.phases import approve as approving
from handlers.phases.approve import Decided
from handlers.release.phase import Release, exit_code

ReleaseArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="Id of the release that waits.")]
RequiredReason = Annotated[str, typer.Option("--reason", help="What makes you sure, in one sentence.")]


@app.command()
@expand_options
def approve(
    environment: EnvironmentOption,
    release: ReleaseArgument,
    *,
    plan: Annotated[
        str,
        typer.Option("--plan", help="The hash of the plan that you have read (`runbook plan --release`)."),
    ],
    reason: RequiredReason,
    by: ByOption = "",
    start: Annotated[
        bool | None,
        typer.Option(
            "--start/--no-start",
            help="Start it here once enough have approved; or let it wait for `runbook resume`. "
            "Default: as was asked for.",
            show_default=False,
        ),
    ] = None,
    run_options: RunOptions,
) -> int:
    """Approve exactly the plan that you have read, by its hash. With enough approvals the release may start."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        await migrate.upgrade_existing(database)
        async with telling(environment):
            decided = await approving.approve(
                database,
                settings.name,
                release,
                plan=plan,
                by=requester(by),
                reason=reason,
                account=account(),
                starts=start,
            )
        if decided.is_approved and start:
            because = ["--because", f"approved, and started by {requester(by)}"]
            return await run_driver(database, environment, decided.release, "execute", because, run_options)
        code = ExitCode.GOOD if decided.is_approved else ExitCode.HELD
        return _print(decided, code, json=run_options.json)

    return asyncio.run(with_database(environment, execute))


@app.command()
def reject(
    environment: EnvironmentOption,
    release: ReleaseArgument,
    reason: RequiredReason,
    by: ByOption = "",
    json: JsonOption = False,
) -> int:
    """End a plan that waits for approval or for its start: it is refused, with the reason."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        if not await migrate.upgrade_existing(database):
            raise Refused(f"{settings.name} has no ledger: nothing waits there")
        async with telling(environment):
            decided = await approving.reject(
                database, settings.name, release, by=requester(by), reason=reason, account=account()
            )
        return _print(decided, ExitCode.GOOD, json=json)

    return asyncio.run(with_database(environment, execute))


async def print_waiting(database: AsyncEngine, run: Release, sentence: str, *, json: bool) -> ExitCode:
    """Print that a release is in the ledger and waits. Nothing runs meanwhile."""
    if json:
        print_json({**await outcome(database, run), "reason": sentence})
    else:
        console().print(sentence)
    return exit_code(run.phase)


def _print(decided: Decided, code: ExitCode, *, json: bool) -> ExitCode:
    """Print what came of a decision, and return *code*."""
    if json:
        print_json(
            {
                "release": decided.release.id,
                "environment": decided.release.environment,
                "phase": decided.release.phase,
                "needed": decided.needed,
                "approvals": decided.given,
                "starts": decided.starts,
                "sentence": decided.sentence,
                "exit_code": int(code),
            }
        )
    else:
        console().print(f"release {decided.release.id}: {decided.sentence}")
    return code
