"""Commands that begin a release: a whole one, or one phase of it by hand on what runs now."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows.cli.app import app
from flows.cli.carry import carry
from flows.cli.options import EnvironmentOption, JsonOption, RequestOptions, RunOptions, expand_options
from flows.cli.output import console, failure, person, print_json
from flows.cli.plan_text import lines
from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.errors import ExitCode, Refused
from handlers.phases import begin
from handlers.phases.plan import make_plan
from handlers.release.phase import Phase
from handlers.release.planned import EVERYTHING, Plan

RevisionArgument = Annotated[str, typer.Argument(help="Commit, tag or branch of the ERP.")]


@app.command()
def plan(environment: EnvironmentOption, revision: RevisionArgument, json: JsonOption = False) -> int:
    """Show what a release would do, and whether every check passes; changes nothing."""
    made = asyncio.run(_plan(environment, revision, EVERYTHING))
    _show_plan(made, json=json)
    return ExitCode.GOOD if made.good else ExitCode.REFUSED


@app.command()
@expand_options
def release(
    environment: EnvironmentOption,
    revision: RevisionArgument,
    *,
    expect: Annotated[
        str, typer.Option("--plan", help="Go only when the plan still has this hash (from `runbook plan`).")
    ] = "",
    asking: RequestOptions,
    going: RunOptions,
) -> int:
    """Deploy a revision, prove it, drain the dead letters and watch; undo it when the gate says no."""
    return asyncio.run(_run(environment, revision, EVERYTHING, asking, going, expect=expect))


@app.command()
@expand_options
def canary(environment: EnvironmentOption, asking: RequestOptions, going: RunOptions) -> int:
    """Prove the revision that runs now on exactly one dead letter; deploys nothing."""
    return asyncio.run(_run(environment, None, (Phase.PROBING, Phase.CANARY), asking, going))


@app.command()
@expand_options
def drain(
    environment: EnvironmentOption,
    *,
    left_by: Annotated[
        str,
        typer.Option("--left-by", help="Only what this release, which was rolled back, has left behind."),
    ] = "",
    asking: RequestOptions,
    going: RunOptions,
) -> int:
    """Prove the revision that runs now, then drain the dead letters in growing batches; deploys nothing."""
    scope = (Phase.PROBING, Phase.CANARY, Phase.DRAINING)
    return asyncio.run(_run(environment, None, scope, asking, going, left_by=left_by))


@app.command()
@expand_options
def watch(environment: EnvironmentOption, asking: RequestOptions, going: RunOptions) -> int:
    """Watch live traffic of the revision that runs now for the environment's window; deploys nothing."""
    return asyncio.run(_run(environment, None, (Phase.PROBING, Phase.WATCHING), asking, going))


async def _plan(environment: str, revision: str | None, scope: tuple[Phase, ...]) -> Plan:
    async with open_core(load_environment(environment)) as core:
        return await make_plan(core, revision, scope)


async def _run(
    environment: str,
    revision: str | None,
    scope: tuple[Phase, ...],
    asking: RequestOptions,
    going: RunOptions,
    *,
    expect: str = "",
    left_by: str = "",
) -> int:
    async with open_core(load_environment(environment)) as core:
        made = await make_plan(core, revision, scope, left_by=left_by)
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
        run = await begin.record_release(core, made, requested_by=person(asking.by), reason=asking.reason)
        return await carry(core.database, environment, run, "carry_out", [], going)


def _show_plan(made: Plan, *, json: bool) -> None:
    if json:
        told = made.as_json()
        print_json(told if made.good else {**told, **failure(made.refusal, ExitCode.REFUSED)})
    else:
        for line in lines(made):
            console().print(line)
