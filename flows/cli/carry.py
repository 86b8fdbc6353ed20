"""Start the driver process of a release, show its progress, and report the outcome with its exit code."""

from __future__ import annotations

import asyncio
import sys

from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import follow
from flows.cli.options import RunOptions
from flows.cli.output import console, print_json
from handlers.errors import DatabaseDown, ExitCode, Refused
from handlers.release import lock, settings
from handlers.release.ledger import records
from handlers.release.phase import LIVE, Phase, Release, exit_code

SETTLED_PHASES = frozenset(Phase) - (LIVE - {Phase.HELD}) - {Phase.PLANNED, Phase.APPROVED}
"""The phases in which a release has ended, or waits for the operator."""


async def run_driver(
    database: AsyncEngine,
    environment: str,
    run: Release,
    verb: str,
    options: list[str],
    run_options: RunOptions,
    *,
    take_over: str = "",
) -> int:
    """Start the driver of *run* and show its progress until it ends. Ctrl-C only detaches.

    *verb* and *options* are arguments of `flows.driver`. Returns the exit code of the command.
    """
    await _print_differences(database, run, json=run_options.json)
    options = options + (["--without-prefect"] if run_options.without_prefect else [])
    options += ["--take-over", take_over] if take_over else []
    driver = follow.start(verb, environment, run.id, *options)
    reattach = f"runbook status --watch -e {environment}"
    if run_options.detach:
        print_json({"release": run.id, "log": str(driver.log)}) if run_options.json else console().print(
            f"release {run.id} has started; follow it with: {reattach}"
        )
        return ExitCode.GOOD
    try:
        out = None if run_options.json else console(plain=run_options.plain)
        view = await follow.follow(
            database, run.environment, run.id, driver=driver, out=out, until=SETTLED_PHASES
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        message = f"detached; release {run.id} continues. Re-attach with: {reattach}"
        return _print_detached(run, message, json=run_options.json)
    except DatabaseDown as error:
        message = (
            f"the state of release {run.id} is unknown: {error}. When the database is back, run: {reattach}"
        )
        return _print_detached(run, message, json=run_options.json)
    assert view.release is not None
    code = exit_code(view.release.phase)
    if run_options.json:
        print_json(await _outcome(database, view.release, code))
    else:
        line = f"release {run.id}: {view.release.phase}. {view.release.reason}"
        console(plain=run_options.plain).print(line)
    return code


async def raise_if_locked(database: AsyncEngine, environment: str, *, take_over: str) -> None:
    """Raise Refused when a live controller has the lock: the driver would find it out only later."""
    holder = await lock.holder(database, environment)
    if holder is not None and holder.alive and not take_over:
        raise Refused(lock.locked_message(holder, environment))


async def adopt_file(database: AsyncEngine, run: Release, *, by: str, json: bool) -> None:
    """Give the release the settings of the environment file as it is now, and say what that changes."""
    for sentence in await settings.adopt(database, run, by=by):
        print(f"runbook: {sentence}", file=sys.stderr) if json else console().print(f"Changes  {sentence}")


async def _print_differences(database: AsyncEngine, run: Release, *, json: bool) -> None:
    """Say how the environment file differs from the settings of the release, which it keeps."""
    for sentence in await settings.differences_now(database, run):
        # With --json stdout has only JSON, but whoever reads along must still learn it.
        print(f"runbook: {sentence}", file=sys.stderr) if json else console().print(f"Differs  {sentence}")


def _print_detached(run: Release, sentence: str, *, json: bool) -> ExitCode:
    """Print that the command ends before the release does; returns its exit code."""
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
