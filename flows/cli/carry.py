"""Handing a release to its own process, and what the command says and returns when that has ended."""

from __future__ import annotations

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import follow
from flows.cli.options import RunOptions
from flows.cli.output import console, print_json
from handlers.errors import DatabaseDown, ExitCode, Refused
from handlers.release import lock
from handlers.release.ledger import records
from handlers.release.phase import LIVE, Phase, Release, exit_code

UNTIL = frozenset(Phase) - (LIVE - {Phase.HELD}) - {Phase.PLANNED, Phase.APPROVED}
"""Where a screen has nothing more to show: the release has ended, or a person must decide."""


async def carry(
    database: AsyncEngine,
    environment: str,
    run: Release,
    verb: str,
    words: list[str],
    going: RunOptions,
    *,
    take_over: str = "",
) -> int:
    """Start the driver of *run* and show it to its end; Ctrl-C leaves the release to the driver."""
    words = words + (["--without-prefect"] if going.without_prefect else [])
    words += ["--take-over", take_over] if take_over else []
    driver = follow.start(verb, environment, run.id, *words)
    comeback = f"runbook status --watch -e {environment}"
    if going.detach:
        print_json({"release": run.id, "log": str(driver.log)}) if going.json else console().print(
            f"release {run.id} has begun; follow it with: {comeback}"
        )
        return ExitCode.GOOD
    try:
        out = None if going.json else console(plain=going.plain)
        view = await follow.follow(database, run.environment, run.id, driver=driver, out=out, until=UNTIL)
    except (KeyboardInterrupt, asyncio.CancelledError):
        told = f"release {run.id} goes on without this screen; come back with: {comeback}"
        return _waiting(run, told, json=going.json)
    except DatabaseDown as error:
        told = f"nobody can say how release {run.id} stands: {error}; when it is back: {comeback}"
        return _waiting(run, told, json=going.json)
    assert view.release is not None
    code = exit_code(view.release.phase)
    if going.json:
        print_json(await _outcome(database, view.release, code))
    else:
        console(plain=going.plain).print(f"release {run.id}: {view.release.phase}. {view.release.reason}")
    return code


async def must_be_free(database: AsyncEngine, environment: str, *, take_over: str) -> None:
    """Say at once what the driver would find out later: somebody else carries a release out just now."""
    holder = await lock.holder(database, environment)
    if holder is not None and holder.alive and not take_over:
        raise Refused(lock.held(holder, environment))


def _waiting(run: Release, sentence: str, *, json: bool) -> ExitCode:
    """The command ends before the release does."""
    code = ExitCode.HELD
    if json:
        print_json({"release": run.id, "outcome": None, "exit_code": int(code), "reason": sentence})
    else:
        console().print(f"\n{sentence}")
    return code


async def _outcome(database: AsyncEngine, run: Release, code: ExitCode) -> dict[str, object]:
    files = await records.files(database, run)
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
