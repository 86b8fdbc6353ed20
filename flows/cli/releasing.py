"""Commands that begin a release: a whole one, or one phase of it by hand on what runs now."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows.cli.app import app
from flows.cli.carrying import carry
from flows.cli.options import Asking, EnvironmentOption, Going, JsonOption, spread
from flows.cli.output import console, failure, person, print_json
from flows.cli.planned import lines
from handlers import beginning, preflight
from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.errors import ExitCode, Refused
from handlers.plan import EVERYTHING, Plan
from handlers.release import Phase

RevisionArgument = Annotated[str, typer.Argument(help="Commit, tag or branch of the ERP.")]


@app.command()
def plan(environment: EnvironmentOption, revision: RevisionArgument, json: JsonOption = False) -> int:
    """Show what a release would do, and whether every check passes; changes nothing."""
    made = asyncio.run(_plan(environment, revision, EVERYTHING))
    _show_plan(made, json=json)
    return ExitCode.GOOD if made.good else ExitCode.REFUSED


@app.command()
@spread
def release(
    environment: EnvironmentOption,
    revision: RevisionArgument,
    *,
    expect: Annotated[
        str, typer.Option("--plan", help="Go only when the plan still has this hash (from `runbook plan`).")
    ] = "",
    asking: Asking,
    going: Going,
) -> int:
    """Deploy a revision, prove it, drain the dead letters and watch; undo it when the gate says no."""
    return asyncio.run(_run(environment, revision, EVERYTHING, asking, going, expect=expect))


@app.command()
@spread
def canary(environment: EnvironmentOption, asking: Asking, going: Going) -> int:
    """Prove the revision that runs now on exactly one dead letter; deploys nothing."""
    return asyncio.run(_run(environment, None, (Phase.PROBING, Phase.CANARY), asking, going))


@app.command()
@spread
def drain(
    environment: EnvironmentOption,
    *,
    left_by: Annotated[
        str,
        typer.Option("--left-by", help="Only what this release, which was rolled back, has left behind."),
    ] = "",
    asking: Asking,
    going: Going,
) -> int:
    """Prove the revision that runs now, then drain the dead letters in growing batches; deploys nothing."""
    scope = (Phase.PROBING, Phase.CANARY, Phase.DRAINING)
    return asyncio.run(_run(environment, None, scope, asking, going, left_by=left_by))


@app.command()
@spread
def watch(environment: EnvironmentOption, asking: Asking, going: Going) -> int:
    """Watch live traffic of the revision that runs now for the environment's window; deploys nothing."""
    return asyncio.run(_run(environment, None, (Phase.PROBING, Phase.WATCHING), asking, going))


async def _plan(environment: str, revision: str | None, scope: tuple[Phase, ...]) -> Plan:
    async with open_core(load_environment(environment)) as core:
        return await preflight.plan(core, revision, scope)


async def _run(
    environment: str,
    revision: str | None,
    scope: tuple[Phase, ...],
    asking: Asking,
    going: Going,
    *,
    expect: str = "",
    left_by: str = "",
) -> int:
    async with open_core(load_environment(environment)) as core:
        made = await preflight.plan(core, revision, scope, left_by=left_by)
        if not going.json:
            _show_plan(made, json=False)
        if not made.good:
            raise Refused(made.refusal)
        if expect and expect != made.hash:
            raise Refused(
                f"the world has moved since the plan {expect}: it is {made.hash} now, look at it again"
            )
        if not asking.yes and not going.json:
            typer.confirm("start it?", abort=True)
        run = await beginning.write_down(core, made, requested_by=person(asking.by), reason=asking.reason)
        return await carry(core.database, environment, run, "carry_out", [], going)


def _show_plan(made: Plan, *, json: bool) -> None:
    if json:
        told = made.as_json()
        print_json(told if made.good else {**told, **failure(made.refusal, ExitCode.REFUSED)})
    else:
        for line in lines(made):
            console().print(line)
