"""The process that executes a release: started by the command line, and independent of its terminal.

    python -m flows.driver execute ENVIRONMENT RELEASE [--because TEXT] [--take-over REASON]
    python -m flows.driver roll_back ENVIRONMENT RELEASE --by NAME --reason TEXT

It uses a running Prefect server (PREFECT_API_URL, or `runbook up`), else it starts a temporary one, unless
`--no-temporary-prefect` forbids it. With `--without-prefect`, or without a server, it makes the same calls without
Prefect.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.driver_log import write_end
from flows.local import server, up
from handlers.environment.last_good import last_good
from handlers.errors import ExitCode, RunbookError
from handlers.state_folder import STATE

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from flows.ending import WorkDone

log = logging.getLogger(__name__)

PREFECT_END_SECONDS = 15.0
"""How long Prefect may take to record the final state (a few requests). The release has ended by then."""
_TEMPORARY_FOLDERS: list[str] = []
"""Folders of the temporary server, removed when the process exits early. The kernel ends that server with us."""


def main() -> None:
    """Execute or roll back the release. The exit code is that of this process; the ledger has the outcome."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("paramiko").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    arguments = _parse_arguments()
    try:
        asyncio.run(_run_until_signal(arguments))
    except RunbookError as error:
        write_end(error)
        sys.exit(int(error.exit_code))
    except asyncio.CancelledError:
        write_end("stopped by a signal; `runbook resume` continues from the phase in the ledger")
        sys.exit(int(ExitCode.HELD))
    except Exception as error:
        log.exception("unexpected error")
        write_end(error)
        sys.exit(int(ExitCode.OWN_ERROR))


async def _run_until_signal(arguments: argparse.Namespace) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with prefect(
        without=arguments.without_prefect, temporary=not arguments.no_temporary_prefect
    ) as has_prefect:
        await _drive(arguments, has_prefect)


@asynccontextmanager
async def prefect(*, without: bool, temporary: bool = True) -> AsyncIterator[bool]:
    """Set the address of a Prefect server before Prefect is imported; yields whether there is a server."""
    os.environ.update({"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"})
    if without:
        os.environ.setdefault("PREFECT_HOME", str(STATE / "prefect"))
        yield False
        return
    if address := os.environ.get("PREFECT_API_URL"):
        # Checked first: Prefect itself would retry a dead server for minutes before the release could begin.
        reachable = await server.is_reachable(address)
        if not reachable:
            log.warning(
                "no Prefect server answers at PREFECT_API_URL (%s); continuing without Prefect", address
            )
        yield reachable
        return
    if (running := up.api_url_if_running()) is not None:
        os.environ.update(server.prefect_settings(up.STATE, running))
        yield True
        return
    if not temporary:
        os.environ.setdefault("PREFECT_HOME", str(STATE / "prefect"))
        yield False
        return
    with tempfile.TemporaryDirectory(prefix="tds-runbook-prefect-") as folder:
        _TEMPORARY_FOLDERS.append(folder)
        own_server = server.temporary_server(Path(folder), template=STATE / "templates")
        try:
            api_url = await own_server.__aenter__()
        except RunbookError as error:
            log.warning("no Prefect server could be started (%s); continuing without Prefect", error)
            yield False
            return
        try:
            os.environ.update(server.prefect_settings(Path(folder), api_url))
            yield True
        finally:
            await _flush_logs()
            await own_server.__aexit__(None, None, None)


async def _flush_logs() -> None:
    """Send the last log lines while the server still runs: at exit Prefect would retry them for minutes."""
    from prefect.logging.handlers import APILogHandler

    try:
        async with asyncio.timeout(PREFECT_END_SECONDS):
            await APILogHandler.aflush()
    except Exception as error:
        log.warning("the last log lines did not reach Prefect: %s", error)


async def _drive(arguments: argparse.Namespace, has_prefect: bool) -> None:
    # The name is used from here on. Loading a file by its path also registers its name.
    arguments.environment = (await last_good(arguments.environment)).name
    if has_prefect and not await _with_prefect(arguments):
        log.warning("continuing without Prefect, from the phase in the ledger")
        has_prefect = False
    if not has_prefect:
        await _without_prefect(arguments)


async def _with_prefect(arguments: argparse.Namespace) -> bool:
    """Make the calls as a flow run. False when Prefect ended it before the work was done.

    WORK_DONE tells whether the work ended. The state of the run cannot: a failed release and an aborted run are both
    Failed.
    """
    # Imported here: Prefect reads its settings when it is imported.
    from flows.ending import WORK_DONE

    threading.Thread(target=_exit_after_work, args=(WORK_DONE,), daemon=True).start()
    try:
        state = await _run_flow(arguments)
        outcome = state.name
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    if WORK_DONE.error is not None:
        raise WORK_DONE.error
    if not WORK_DONE.ended:
        log.warning("the flow run ended before its work did: %s", outcome)
    return WORK_DONE.ended


async def _run_flow(arguments: argparse.Namespace) -> State[Any]:
    from flows import release, rollback

    # The rules of the forms are not those of the command line, which has checked what it was given.
    if arguments.verb == "execute":
        return await release.continue_release.with_options(validate_parameters=False)(
            arguments.environment,
            arguments.release,
            take_over=arguments.take_over,
            because=arguments.because,
            return_state=True,
        )
    return await rollback.rollback.with_options(validate_parameters=False)(
        arguments.environment,
        reason=arguments.reason,
        requested_by=arguments.by,
        take_over=arguments.take_over,
        blames_revision=not arguments.no_blame,
        past_migrations=arguments.past_migrations,
        return_state=True,
    )


def _exit_after_work(work_done: WorkDone) -> None:
    """Exit when Prefect keeps the process alive after the work: it retries a dead server for minutes."""
    work_done.event.wait()
    # Not `time.sleep`: it fails where libfaketime moves the clock, and this thread would be gone.
    threading.Event().wait(PREFECT_END_SECONDS)
    log.warning(
        "the release ended, but Prefect did not record its final state within %.0f s", PREFECT_END_SECONDS
    )
    for folder in _TEMPORARY_FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)
    if work_done.error is not None:
        write_end(work_done.error)
    os._exit(int(work_done.exit_code))


async def _without_prefect(arguments: argparse.Namespace) -> None:
    from flows import release, rollback

    if arguments.verb == "execute":
        await release.execute_by_id(
            arguments.environment,
            arguments.release,
            take_over=arguments.take_over,
            because=arguments.because,
        )
    else:
        await rollback.roll_back(
            arguments.environment,
            reason=arguments.reason,
            requested_by=arguments.by,
            take_over=arguments.take_over,
            blames_revision=not arguments.no_blame,
            past_migrations=arguments.past_migrations,
        )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="flows.driver")
    parser.add_argument("verb", choices=("execute", "roll_back"))
    parser.add_argument("environment")
    parser.add_argument("release")
    parser.add_argument("--by", default="")
    parser.add_argument("--reason", default="")
    parser.add_argument("--take-over", default="")
    parser.add_argument("--no-blame", action="store_true", help="a rollback that is no fault of the revision")
    parser.add_argument("--past-migrations", action="store_true", help="also where they cannot be undone")
    parser.add_argument("--because", default="")
    parser.add_argument("--without-prefect", action="store_true")
    parser.add_argument("--no-temporary-prefect", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
