"""The commands that start a release, or only some of its phases with the revision that runs now."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows.cli.app import app
from flows.cli.carry import run_driver
from flows.cli.options import EnvironmentOption, JsonOption, RequestOptions, RunOptions, expand_options
from flows.cli.output import confirm, console, failure, print_json, requester
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
    release_plan = asyncio.run(_plan(environment, revision, EVERYTHING))
    _print_plan(release_plan, json=json)
    return ExitCode.GOOD if release_plan.good else ExitCode.REFUSED


@app.command()
@expand_options
def release(
    environment: EnvironmentOption,
    revision: RevisionArgument,
    *,
    expect: Annotated[
        str,
        typer.Option("--plan", help="Start only if the plan still has this hash (from `runbook plan`)."),
    ] = "",
    request: RequestOptions,
    run_options: RunOptions,
) -> int:
    """Deploy a revision, prove it, drain the dead letters and watch; rolls back automatically on a breach."""
    return asyncio.run(_run(environment, revision, EVERYTHING, request, run_options, expect=expect))


@app.command()
@expand_options
def canary(environment: EnvironmentOption, request: RequestOptions, run_options: RunOptions) -> int:
    """Prove the revision that runs now on exactly one dead letter; deploys nothing."""
    return asyncio.run(_run(environment, None, (Phase.PROBING, Phase.CANARY), request, run_options))


@app.command()
@expand_options
def drain(
    environment: EnvironmentOption,
    *,
    left_by: Annotated[
        str,
        typer.Option("--left-by", help="Drain only what this rolled-back release left behind (its id)."),
    ] = "",
    request: RequestOptions,
    run_options: RunOptions,
) -> int:
    """Prove the revision that runs now, then drain the dead letters in growing batches; deploys nothing."""
    scope = (Phase.PROBING, Phase.CANARY, Phase.DRAINING)
    return asyncio.run(_run(environment, None, scope, request, run_options, left_by=left_by))


@app.command()
@expand_options
def watch(environment: EnvironmentOption, request: RequestOptions, run_options: RunOptions) -> int:
    """Watch live traffic with the revision that runs now, for the environment's window; deploys nothing."""
    return asyncio.run(_run(environment, None, (Phase.PROBING, Phase.WATCHING), request, run_options))


async def _plan(environment: str, revision: str | None, scope: tuple[Phase, ...]) -> Plan:
    async with open_core(load_environment(environment)) as core:
        return await make_plan(core, revision, scope)


async def _run(
    environment: str,
    revision: str | None,
    scope: tuple[Phase, ...],
    request: RequestOptions,
    run_options: RunOptions,
    *,
    expect: str = "",
    left_by: str = "",
) -> int:
    async with open_core(load_environment(environment)) as core:
        release_plan = await make_plan(core, revision, scope, left_by=left_by)
        if not run_options.json:
            _print_plan(release_plan, json=False)
        if not release_plan.good:
            raise Refused(release_plan.refusal)
        if expect and expect != release_plan.hash:
            raise Refused(
                f"plan {expect} is outdated: the plan is {release_plan.hash} now. "
                "Run `runbook plan` and check it again."
            )
        warning = f"{release_plan.history_warning}. " if release_plan.history_warning else ""
        confirm(f"{warning}start it?", yes=request.yes)
        run = await begin.record_release(
            core, release_plan, requested_by=requester(request.by), reason=request.reason
        )
        return await run_driver(core.database, environment, run, "execute", [], run_options)


def _print_plan(release_plan: Plan, *, json: bool) -> None:
    if json:
        fields = release_plan.as_json()
        problem = {} if release_plan.good else failure(release_plan.refusal, ExitCode.REFUSED)
        print_json({**fields, **problem})
    else:
        for line in lines(release_plan):
            console().print(line)
