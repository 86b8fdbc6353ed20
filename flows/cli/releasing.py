"""Commands that change an environment: plan, release, and what a person can do to a release."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import follow
from flows.cli.app import (
    ByOption,
    DetachOption,
    EnvironmentOption,
    JsonOption,
    PlainOption,
    ReasonOption,
    ReleaseOption,
    YesOption,
    app,
)
from flows.cli.output import console, person, print_json
from flows.cli.planned import lines
from handlers import beginning, config, ledger, preflight
from handlers.core import engine, open_core
from handlers.errors import ExitCode, Refused
from handlers.plan import EVERYTHING, Plan
from handlers.release import LIVE, Phase, Release, exit_code

RevisionArgument = Annotated[str, typer.Argument(help="Commit, tag or branch of the ERP.")]
PrefectOption = Annotated[
    bool, typer.Option("--without-prefect", help="Make the same calls without any Prefect server.")
]
TakeOverOption = Annotated[
    str, typer.Option("--take-over", help="Reason for taking the lock from a controller that still lives.")
]


@app.command()
def plan(environment: EnvironmentOption, revision: RevisionArgument, json: JsonOption = False) -> int:
    """Show what a release would do, and whether every check passes; changes nothing."""
    made = asyncio.run(_plan(environment, revision, EVERYTHING))
    _show_plan(made, json=json)
    return ExitCode.GOOD if made.good else ExitCode.REFUSED


@app.command()
def release(
    environment: EnvironmentOption,
    revision: RevisionArgument,
    reason: ReasonOption = "",
    by: ByOption = "",
    yes: YesOption = False,
    detach: DetachOption = False,
    without_prefect: PrefectOption = False,
    json: JsonOption = False,
    plain: PlainOption = False,
    expect: Annotated[
        str, typer.Option("--plan", help="Go only when the plan still has this hash (from `runbook plan`).")
    ] = "",
) -> int:
    """Deploy a revision, prove it, drain the dead letters and watch; undo it when the gate says no."""
    return asyncio.run(
        _run(
            environment,
            revision,
            EVERYTHING,
            reason=reason,
            by=by,
            yes=yes,
            detach=detach,
            without_prefect=without_prefect,
            json=json,
            plain=plain,
            expect=expect,
        )
    )


@app.command()
def canary(
    environment: EnvironmentOption,
    reason: ReasonOption = "",
    by: ByOption = "",
    yes: YesOption = False,
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Prove the revision that runs now on exactly one dead letter; deploys nothing."""
    scope = (Phase.PROBING, Phase.CANARY)
    return asyncio.run(_run(environment, None, scope, reason=reason, by=by, yes=yes, json=json, plain=plain))


@app.command()
def drain(
    environment: EnvironmentOption,
    reason: ReasonOption = "",
    by: ByOption = "",
    yes: YesOption = False,
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Prove the revision that runs now, then drain the dead letters in growing batches; deploys nothing."""
    scope = (Phase.PROBING, Phase.CANARY, Phase.DRAINING)
    return asyncio.run(_run(environment, None, scope, reason=reason, by=by, yes=yes, json=json, plain=plain))


@app.command()
def watch(
    environment: EnvironmentOption,
    reason: ReasonOption = "",
    by: ByOption = "",
    yes: YesOption = False,
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Watch live traffic of the revision that runs now for the environment's window; deploys nothing."""
    scope = (Phase.PROBING, Phase.WATCHING)
    return asyncio.run(_run(environment, None, scope, reason=reason, by=by, yes=yes, json=json, plain=plain))


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

    async def go() -> int:
        database = engine(config.load(environment))
        try:
            run = await _unfinished(database, config.load(environment).name)
            options = _options(without_prefect, take_over)
            return await _carry(
                database, environment, run, "carry_out", options, detach=detach, json=json, plain=plain
            )
        finally:
            await database.dispose()

    return asyncio.run(go())


@app.command()
def rollback(
    environment: EnvironmentOption,
    reason: Annotated[str, typer.Option("--reason", help="Why, in one sentence.")],
    by: ByOption = "",
    take_over: TakeOverOption = "",
    without_prefect: PrefectOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Take the newest release back to the revision before it, on every host, and prove it."""

    async def go() -> int:
        settings = config.load(environment)
        database = engine(settings)
        try:
            run = await beginning.rollback_candidate(database, settings.name)
            told = f"roll {settings.name} back from {run.to_revision[:7]} to {run.from_revision[:7]}"
            if not yes and not json:
                typer.confirm(f"{told} ({reason})?", abort=True)
            options = ["--by", person(by), "--reason", reason, *_options(without_prefect, take_over)]
            return await _carry(
                database, environment, run, "roll_back", options, detach=False, json=json, plain=plain
            )
        finally:
            await database.dispose()

    return asyncio.run(go())


@app.command()
def abort(
    environment: EnvironmentOption,
    reason: Annotated[str, typer.Option("--reason", help="Why, in one sentence.")],
    release: ReleaseOption = None,
    by: ByOption = "",
    json: JsonOption = False,
) -> int:
    """End a planned or held release without doing anything more; what is deployed stays deployed."""

    async def go() -> int:
        settings = config.load(environment)
        database = engine(settings)
        try:
            run = (
                await ledger.get(database, release) if release else await _unfinished(database, settings.name)
            )
            ended = await beginning.abort(database, run, by=person(by), reason=reason)
        finally:
            await database.dispose()
        if json:
            print_json({"release": ended.id, "phase": ended.phase, "exit_code": 0})
        else:
            console().print(
                f"release {ended.id} is aborted; {ended.to_revision[:7]} stays where it is deployed"
            )
        return ExitCode.GOOD

    return asyncio.run(go())


async def _plan(environment: str, revision: str | None, scope: tuple[Phase, ...]) -> Plan:
    async with open_core(config.load(environment)) as core:
        return await preflight.plan(core, revision, scope)


async def _run(
    environment: str,
    revision: str | None,
    scope: tuple[Phase, ...],
    *,
    reason: str,
    by: str,
    yes: bool,
    json: bool,
    plain: bool,
    detach: bool = False,
    without_prefect: bool = False,
    expect: str = "",
) -> int:
    settings = config.load(environment)
    async with open_core(settings) as core:
        made = await preflight.plan(core, revision, scope)
        if not json:
            _show_plan(made, json=False)
        if not made.good:
            raise Refused(made.refusal)
        if expect and expect != made.hash:
            raise Refused(
                f"the world has moved since the plan {expect}: it is {made.hash} now, look at it again"
            )
        if not yes and not json:
            typer.confirm("start it?", abort=True)
        run = await beginning.write_down(core, made, requested_by=person(by), reason=reason)
        options = _options(without_prefect, "")
        return await _carry(
            core.database, environment, run, "carry_out", options, detach=detach, json=json, plain=plain
        )


async def _carry(
    database: AsyncEngine,
    environment: str,
    run: Release,
    verb: str,
    options: list[str],
    *,
    detach: bool,
    json: bool,
    plain: bool,
) -> int:
    driver = follow.start(verb, environment, run.id, *options)
    comeback = f"runbook status --watch -e {environment}"
    if detach:
        print_json({"release": run.id, "log": str(driver.log)}) if json else console().print(
            f"release {run.id} has begun; follow it with: {comeback}"
        )
        return ExitCode.GOOD
    try:
        until = frozenset(Phase) - (LIVE - {Phase.HELD}) - {Phase.PLANNED, Phase.APPROVED}
        view = await follow.follow(
            database,
            run.environment,
            run.id,
            driver=driver,
            out=None if json else console(plain=plain),
            until=until,
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        if not json:
            console().print(f"\nrelease {run.id} goes on without this screen; come back with: {comeback}")
        return ExitCode.HELD
    assert view.release is not None
    code = exit_code(view.release.phase)
    if json:
        print_json(await _outcome(database, view.release, code))
    else:
        console(plain=plain).print(f"release {run.id}: {view.release.phase}. {view.release.reason}")
    return code


async def _outcome(database: AsyncEngine, run: Release, code: ExitCode) -> dict[str, object]:
    files = await ledger.files(database, run)
    report = [file.path for file in files if file.kind.startswith("report")]
    return {
        "release": run.id,
        "environment": run.environment,
        "outcome": run.phase,
        "exit_code": int(code),
        "reason": run.reason,
        "from": run.from_revision,
        "to": run.to_revision,
        "report": report[-1] if report else None,
    }


async def _unfinished(database: AsyncEngine, environment: str) -> Release:
    run = await ledger.live(database, environment) or await ledger.latest(database, environment)
    if run is None or run.finished_at is not None:
        raise Refused(f"no release of {environment} is held or under way: there is nothing to go on with")
    return run


def _options(without_prefect: bool, take_over: str) -> list[str]:
    options = ["--without-prefect"] if without_prefect else []
    return [*options, "--take-over", take_over] if take_over else options


def _show_plan(made: Plan, *, json: bool) -> None:
    if json:
        print_json(made.as_json())
    else:
        for line in lines(made):
            console().print(line)
