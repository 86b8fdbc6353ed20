"""`runbook heal`: heal an environment once, show what would be done, or what was done. A timer runs it."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import app
from flows.cli.everywhere import Place, Result, in_each
from flows.cli.heal_text import history_lines, preview_lines
from flows.cli.options import OptionalEnvironmentOption, RunOptions, expand_options
from flows.cli.output import console, print_json
from flows.cli.session import raise_if_no_ledger, with_database
from handlers.core import open_core
from handlers.database import migrate
from handlers.environment.model import Environment
from handlers.errors import ExitCode, Refused
from handlers.phases.heal_preview import preview
from handlers.release.ledger import heals


@app.command("heal")
@expand_options
def heal_(
    *,
    environment: OptionalEnvironmentOption = None,
    is_due: Annotated[
        bool, typer.Option("--due", help="Heal one environment, or all of the folder. For a timer.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would be done to which events, and by whom; change nothing."
        ),
    ] = False,
    history: Annotated[bool, typer.Option("--history", help="Show what healing has done.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=1000, help="How many lines of the history.")
    ] = 20,
    run_options: RunOptions,
) -> int:
    """Take events back from dead workers, send old dead letters back in growing batches, tell of a backlog.

    Exit code 4 when something is wrong that healing cannot mend.
    """
    if sum((is_due, dry_run, history)) > 1:
        raise Refused("--due, --dry-run and --history are three different commands: give one of them")
    if is_due or not (dry_run or history):
        if not is_due and not environment:
            raise Refused("name the environment with --environment, or RUNBOOK_ENVIRONMENT; --due heals all")
        return _heal(environment, run_options)
    if not environment:
        raise Refused("name the environment with --environment, or RUNBOOK_ENVIRONMENT")

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        await raise_if_no_ledger(database, settings)
        if history:
            return await _history(database, settings, limit, run_options)
        return await _preview(settings, run_options)

    return asyncio.run(with_database(environment, execute))


def _heal(environment: str | None, options: RunOptions) -> int:
    logging.basicConfig(level=logging.WARNING, format="runbook: %(message)s")

    async def act(place: Place) -> Result:
        name = place.settings.name
        if not await migrate.upgrade_existing(place.database):
            return Result(
                environment=name, exit_code=ExitCode.GOOD, sentence="nothing to heal: it has no ledger"
            )
        # Imported here: Prefect takes longer to import than a run without anything to do.
        from tasks import heal

        healed = await heal.run(place.given)
        return Result(
            environment=name,
            exit_code=healed.exit_code,
            sentence=healed.sentence,
            due=healed.did_something,
            outcome={
                "taken_back": healed.taken_back,
                "batches": healed.batches,
                "out": healed.out,
                "block": healed.block,
                "alarms": healed.alarms,
            },
        )

    return in_each(environment, options, act)


async def _preview(settings: Environment, options: RunOptions) -> int:
    async with open_core(settings) as core:
        found = await preview(core)
    if options.json:
        print_json({"preview": found, "exit_code": int(found.exit_code)})
        return found.exit_code
    for line in preview_lines(found, settings.heal):
        console(plain=options.plain).print(line)
    return found.exit_code


async def _history(database: AsyncEngine, settings: Environment, limit: int, options: RunOptions) -> int:
    state = await heals.state(database, settings.name)
    actions = await heals.history(database, settings.name, limit)
    if options.json:
        print_json({"state": state, "actions": actions, "exit_code": 0})
        return ExitCode.GOOD
    for line in history_lines(settings.name, state, actions):
        console(plain=options.plain).print(line)
    return ExitCode.GOOD
