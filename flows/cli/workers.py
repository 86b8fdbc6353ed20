"""The commands `runbook workers` and `runbook workers restart`."""

from __future__ import annotations

import asyncio
import dataclasses

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import workers_app
from flows.cli.options import (
    ByOption,
    EnvironmentOption,
    HostOption,
    JsonOption,
    OptionalEnvironmentOption,
    ReasonOption,
)
from flows.cli.output import console, cut, print_json, requester
from flows.cli.session import raise_if_no_ledger, with_database
from handlers.core import open_core
from handlers.database.transaction import transaction
from handlers.environment.last_good import last_good
from handlers.environment.model import Environment
from handlers.errors import ExitCode, Refused
from handlers.release.phase import short
from handlers.worker import roster
from handlers.worker.roster import Sign, WorkerRow


@workers_app.callback(invoke_without_command=True)
def workers_(
    context: typer.Context, environment: OptionalEnvironmentOption = None, json: JsonOption = False
) -> int:
    """Show which workers live, on what revision, when they beat last and what they have in hand; or restart them.

    Exit code 4 when one has fallen silent, or none is alive.
    """
    if context.invoked_subcommand is not None:
        return ExitCode.GOOD
    if environment is None:
        raise Refused("name the environment with --environment, or RUNBOOK_ENVIRONMENT")

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        async with transaction(database) as tx:
            found = await roster.workers(tx)
        alive = [worker for worker in found if worker.sign in (Sign.LIVE, Sign.QUIET)]
        silent = [worker for worker in found if worker.sign is Sign.SILENT]
        good = not silent and (bool(alive) or settings.execution == "inline")
        sentence = _sentence(found, alive, silent)
        if json:
            print_json({"environment": settings.name, "good": good, "sentence": sentence, "workers": found})
        else:
            for worker in found:
                console().print(_line(worker))
            console().print(sentence)
        return ExitCode.GOOD if good else ExitCode.HELD

    return asyncio.run(with_database(environment, execute))


@workers_app.command("restart", short_help="restart their units, one host after the other")
def restart(
    environment: EnvironmentOption,
    reason: ReasonOption = "",
    host: HostOption = None,
    by: ByOption = "",
    json: JsonOption = False,
) -> int:
    """Restart the workers' units, one host after the other, and prove it by new heartbeats.

    It takes the lock of the environment, and is refused while a release runs. The ledger records it under the newest
    release. Exit code 4 when a host failed; those after it are not tried.
    """
    if not reason.strip():
        raise Refused("--reason is required: the ledger keeps why the workers were restarted")
    # Imported here and below: SSH and Prefect, which the list does not need.
    from handlers.phases import restart_workers

    async def execute() -> int:
        settings = await last_good(environment)
        restart_workers.hosts_named(settings, host or ())
        async with open_core(settings) as core:
            await raise_if_no_ledger(core.database, settings)
            run = await restart_workers.newest_release(core)
        from tasks import lock, workers

        async with lock.held(run) as held:
            results = await workers.restart(environment, held, tuple(host or ()), requester(by), reason)
        good = all(result.good for result in results)
        if json:
            told = [dataclasses.asdict(result) for result in results]
            print_json({"environment": settings.name, "release": run.id, "good": good, "hosts": told})
        else:
            for result in results:
                console().print(
                    cut(
                        f"{result.host:<12} {result.outcome:<11} {result.seconds:5.1f} s  {result.sentence}",
                        200,
                    )
                )
                for worker in result.workers:
                    console().print(cut(f"{'':<12} {worker}"))
            console().print(f"recorded under release {run.id}")
        return ExitCode.GOOD if good else ExitCode.HELD

    return asyncio.run(execute())


def _line(worker: WorkerRow) -> str:
    beat = f"beat {worker.silent_seconds:,.0f} s ago"
    held = f"{worker.in_hand} in hand, {worker.applied:,} applied, {worker.failed:,} failed"
    head = f"{cut(worker.host, 16):<16} {worker.pid:>7}  {short(worker.revision):<8} {worker.sign:<8}"
    return f"{head} {beat}\n    {cut(worker.owner, 30)}: {held}"


def _sentence(found: list[WorkerRow], alive: list[WorkerRow], silent: list[WorkerRow]) -> str:
    if not found:
        return (
            "no worker has beaten in the last day: the ERP's own never do (`runbook check` asks their units)"
        )
    revisions = sorted({short(worker.revision) for worker in alive})
    on = f" on {', '.join(revisions)}" if revisions else ""
    differ = "; they are on different revisions" if len(revisions) > 1 else ""
    quiet = f", {len(silent)} fell silent without stopping" if silent else ""
    return f"{len(alive)} workers are alive{on}{quiet}{differ}"
