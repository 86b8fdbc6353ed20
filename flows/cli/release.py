"""The commands that start a release, or only some of its phases with the revision that runs now."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import app
from flows.cli.approve import print_waiting
from flows.cli.options import (
    ENVIRONMENT_VARIABLE,
    ByOption,
    EnvironmentOption,
    JsonOption,
    OneEnvironmentOption,
    OverrideFreezeOption,
    OverridePromotionOption,
    ReasonOption,
    RequestOptions,
    RunOptions,
    expand_options,
    parse_entity,
)
from flows.cli.output import console, requester
from flows.cli.session import raise_if_no_ledger, with_database
from flows.cli.start import override_request, print_plan, start
from flows.cli.through import release_through
from flows.telling import telling
from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.environment.model import Environment
from handlers.errors import ExitCode, Refused
from handlers.phases import approve, begin
from handlers.phases.plan import make_plan
from handlers.release.ledger import releases
from handlers.release.only import Only
from handlers.release.override import OverrideRequest
from handlers.release.phase import Phase
from handlers.release.planned import EVERYTHING
from handlers.release.preflight import failure_of

EntityOption = Annotated[
    str, typer.Option("--entity", help="Only dead letters of this entity type, such as Product.")
]
ErrorOption = Annotated[
    str,
    typer.Option(
        "--error", help="Only those with this text in the error code, or in the error without values."
    ),
]
RevisionArgument = Annotated[str, typer.Argument(help="Commit, tag or branch of the ERP.")]


@app.command()
def plan(
    environment: EnvironmentOption,
    revision: Annotated[
        str | None, typer.Argument(help="Commit, tag or branch of the ERP.", show_default=False)
    ] = None,
    release: Annotated[
        str, typer.Option("--release", "-r", help="Show the plan of this release, as it is in the ledger.")
    ] = "",
    store: Annotated[
        bool,
        typer.Option(
            "--store", help="Record it, for an approval in good time; `runbook resume` starts it then."
        ),
    ] = False,
    override_freeze: OverrideFreezeOption = False,
    override_promotion: OverridePromotionOption = False,
    by: ByOption = "",
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Show what a release would do, and whether every check passes; changes nothing. Or show a stored plan."""
    if release:
        if revision is not None or store:
            raise Refused("--release shows a plan that is stored: leave out the revision and --store")
        return asyncio.run(_show(environment, release, json=json))
    if revision is None:
        raise Refused("name the revision: a commit, a tag or a branch of the ERP")
    override = override_request(by, reason, freeze=override_freeze, promotion=override_promotion)
    return asyncio.run(
        _plan(environment, revision, override, store=store, by=requester(by), reason=reason, json=json)
    )


@app.command()
@expand_options
def release(
    revision: RevisionArgument,
    *,
    environment: OneEnvironmentOption = None,
    through: Annotated[
        str,
        typer.Option(
            "--through",
            help="Instead of --environment: several, such as staging,production. Each is released once the one before "
            "it has succeeded with the same commit.",
        ),
    ] = "",
    expect: Annotated[
        str,
        typer.Option("--plan", help="Start only if the plan still has this hash (from `runbook plan`)."),
    ] = "",
    override_promotion: OverridePromotionOption = False,
    request: RequestOptions,
    run_options: RunOptions,
) -> int:
    """Deploy a revision, prove it, drain the dead letters and watch; rolls back automatically on a breach."""
    if through:
        if environment and environment != os.environ.get(ENVIRONMENT_VARIABLE):
            raise Refused("--through names the environments: leave out --environment")
        if expect:
            raise Refused("--plan is the hash of one plan, and --through makes several: leave out --plan")
        return asyncio.run(
            release_through(through, revision, request, run_options, override_promotion=override_promotion)
        )
    if not environment:
        raise Refused(
            f"name the environment with --environment or {ENVIRONMENT_VARIABLE}, or several with --through"
        )
    return asyncio.run(
        start(
            environment,
            revision,
            EVERYTHING,
            request,
            run_options,
            expect=expect,
            override_promotion=override_promotion,
        )
    )


@app.command()
@expand_options
def canary(
    environment: EnvironmentOption,
    *,
    event: Annotated[
        str, typer.Option("--event", help="Take this dead letter (its id, from `runbook queue list`).")
    ] = "",
    entity: EntityOption = "",
    error: ErrorOption = "",
    request: RequestOptions,
    run_options: RunOptions,
) -> int:
    """Prove the revision that runs now on exactly one dead letter; deploys nothing."""
    only = _only(event=event, entity=entity, error=error)
    return asyncio.run(
        start(environment, None, (Phase.PROBING, Phase.CANARY), request, run_options, only=only)
    )


@app.command()
@expand_options
def drain(
    environment: EnvironmentOption,
    *,
    left_by: Annotated[
        str,
        typer.Option("--left-by", help="Drain only what this rolled-back release left behind (its id)."),
    ] = "",
    entity: EntityOption = "",
    error: ErrorOption = "",
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Drain at most so many, parents first; 0: all.")
    ] = 0,
    request: RequestOptions,
    run_options: RunOptions,
) -> int:
    """Prove the revision that runs now, then drain the dead letters in growing batches; deploys nothing."""
    scope = (Phase.PROBING, Phase.CANARY, Phase.DRAINING)
    only = _only(entity=entity, error=error, limit=limit)
    return asyncio.run(start(environment, None, scope, request, run_options, left_by=left_by, only=only))


@app.command()
@expand_options
def watch(environment: EnvironmentOption, request: RequestOptions, run_options: RunOptions) -> int:
    """Watch live traffic with the revision that runs now, for the environment's window; deploys nothing."""
    return asyncio.run(start(environment, None, (Phase.PROBING, Phase.WATCHING), request, run_options))


async def _plan(
    environment: str,
    revision: str,
    override: OverrideRequest | None,
    *,
    store: bool,
    by: str,
    reason: str,
    json: bool,
) -> ExitCode:
    async with open_core(load_environment(environment)) as core:
        release_plan = await make_plan(core, revision, override=override)
        if not store or not release_plan.good:
            print_plan(release_plan, json=json)
            return ExitCode.GOOD if release_plan.good else failure_of(release_plan.checks).exit_code
        if not json:
            print_plan(release_plan, json=False)
        async with telling(environment):
            run = await begin.record_release(core, release_plan, requested_by=by, reason=reason, starts=False)
        why = await approve.why_waiting(core.database, run)
        sentence = why or f"release {run.id} is planned; `runbook resume --release {run.id}` starts it"
        return await print_waiting(core.database, run, sentence, json=json)


async def _show(environment: str, release: str, *, json: bool) -> ExitCode:
    async def execute(database: AsyncEngine, settings: Environment) -> ExitCode:
        await raise_if_no_ledger(database, settings)
        run = await releases.get(database, release)
        if run.environment != settings.name:
            raise Refused(f"release {run.id} belongs to {run.environment}, not to {settings.name}")
        stored = await releases.plan(database, run.id)
        print_plan(stored, json=json)
        if not json and (why := await approve.why_waiting(database, run)):
            console().print(why)
        return ExitCode.GOOD

    return await with_database(environment, execute)


def _only(*, event: str = "", entity: str = "", error: str = "", limit: int = 0) -> Only:
    """The dead letters that are asked for. Raises Refused for an unknown type, and what is no id."""
    if event:
        try:
            event = str(UUID(event))
        except ValueError:
            raise Refused(f"{event!r} is no id of an event: `runbook queue list` shows the ids") from None
    return Only(event=event, entity=parse_entity(entity).value if entity else "", error=error, limit=limit)
