"""Start the driver process of a release, show its progress, and report the outcome with its exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import follow
from flows.cli.json_objects import Outcome, Started, keyed
from flows.cli.options import RunOptions
from flows.cli.output import console, print_json
from handlers.environment.load import env_option
from handlers.errors import LEDGER_AWAY, ExitCode, Refused
from handlers.release import due, lock, settings
from handlers.release.ledger import records, releases
from handlers.release.phase import LIVE, Phase, Release, exit_code

SETTLED_PHASES = frozenset(Phase) - (LIVE - {Phase.HELD}) - {Phase.PLANNED, Phase.APPROVED}
"""The phases in which a release has ended, or waits for the operator."""
REPLACEMENTS_MAX = 3
"""How often a command replaces a driver that died. Later ones are the work of `runbook resume --due`."""


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

    *verb* and *options* are arguments of `flows.driver`. A driver that dies is replaced. Returns the exit code of the
    command.
    """
    await _print_differences(database, run, json=run_options.json)
    options = options + (["--without-prefect"] if run_options.without_prefect else [])
    reattach = f"runbook status --watch {env_option(environment)}"
    force = ["--take-over", take_over] if take_over else []
    stays = await _stays(database, run)
    driver = follow.start(verb, environment, run.id, *options, *force)
    if run_options.detach:
        print_json(
            keyed(Started(release=run.id, log=str(driver.log)))
        ) if run_options.json else console().print(
            f"release {run.id} has started; follow it with: {reattach}"
        )
        return ExitCode.GOOD
    out = None if run_options.json else console(plain=run_options.plain)
    try:
        # The lock of a dead driver of ours is free: only the first one may need force.
        ended = await until_settled(
            database,
            run,
            driver,
            restart=lambda: follow.start(verb, environment, run.id, *options),
            out=out,
            stays=stays,
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        message = f"detached; release {run.id} continues. Re-attach with: {reattach}"
        return print_detached(run, message, json=run_options.json)
    except LEDGER_AWAY as error:
        message = (
            f"the state of release {run.id} is unknown: {error}. When the database is back, run: {reattach}"
        )
        return print_detached(run, message, json=run_options.json)
    code = exit_code(ended.phase)
    if run_options.json:
        print_json(await outcome(database, ended))
    else:
        console(plain=run_options.plain).print(f"release {run.id}: {ended.phase}. {ended.reason}")
    return code


async def until_settled(
    database: AsyncEngine,
    run: Release,
    driver: follow.Driver | None,
    *,
    restart: Callable[[], follow.Driver],
    out: Console | None,
    stays: int | None = None,
) -> Release:
    """Follow a release until it has ended or waits for a person, and return it.

    A driver that dies is replaced by *restart*, a few times. When another controller has taken the release up
    meanwhile, that one is followed. *stays* is the number of phases before the first driver: a release that had ended
    or was held, and has entered no other phase when its driver dies, is not the outcome of what was asked. Raises
    Uncarried after the last replacement died too.
    """
    for replaced in range(1, REPLACEMENTS_MAX + 1):
        try:
            return await _follow(database, run, driver, out, stays)
        except follow.Uncarried as error:
            if (await due.care(database, await releases.get(database, run.id))).carried:
                driver = None
                continue
            sys.stderr.write(f"runbook: {error}; a new one continues ({replaced} of {REPLACEMENTS_MAX})\n")
            driver = restart()
    try:
        return await _follow(database, run, driver, out, stays)
    except follow.Uncarried as error:
        raise follow.Uncarried(
            f"{error}, then run `runbook resume --due {env_option(run.environment)}`"
        ) from error


async def _follow(
    database: AsyncEngine, run: Release, driver: follow.Driver | None, out: Console | None, stays: int | None
) -> Release:
    view = await follow.follow(
        database, run.environment, run.id, driver=driver, out=out, until=SETTLED_PHASES, stop_uncarried=True
    )
    assert view.release is not None
    if driver is not None and driver.died() and stays == await _stays(database, run):
        raise follow.Uncarried(
            f"the process of release {run.id} {driver.how_it_ended()} before it began: {driver.last_line()}. "
            f"See {driver.log}"
        )
    return view.release


async def _stays(database: AsyncEngine, run: Release) -> int:
    """How many phases the release has entered so far."""
    return len(await releases.phase_records(database, run))


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


def print_detached(run: Release, sentence: str, *, json: bool) -> ExitCode:
    """Print that the command ends before the release does; returns its exit code."""
    code = ExitCode.HELD
    if json:
        unknown = Outcome(
            release=run.id,
            environment=run.environment,
            outcome=None,
            exit_code=int(code),
            reason=sentence,
            from_=run.from_revision,
            to=run.to_revision,
            report=None,
        )
        print_json(keyed(unknown))
    else:
        console().print(f"\n{sentence}")
    return code


async def outcome(database: AsyncEngine, run: Release) -> dict[str, object]:
    """The outcome of a release, as every command prints it with --json."""
    files = await records.files(database, run)
    report = [file.path for file in files if file.kind.startswith("report")]
    return keyed(
        Outcome(
            release=run.id,
            environment=run.environment,
            outcome=run.phase,
            exit_code=int(exit_code(run.phase)),
            reason=run.reason,
            from_=run.from_revision,
            to=run.to_revision,
            report=report[-1] if report else None,
        )
    )
