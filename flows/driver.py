"""The process that carries a release out: started by the command line, and independent of its terminal.

    python -m flows.driver carry_out ENVIRONMENT RELEASE [--take-over REASON]
    python -m flows.driver roll_back ENVIRONMENT RELEASE --by NAME --reason TEXT

It uses the Prefect server that is there (PREFECT_API_URL, or `runbook up`), else a temporary one of its own. With
`--without-prefect`, or when no server can be started, it makes the same calls without any.
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
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.local import server, up
from flows.local.state import STATE
from handlers.environment.load import load_environment
from handlers.errors import ExitCode, RunbookError

if TYPE_CHECKING:
    from flows.ending import WorkDone

log = logging.getLogger(__name__)

FAREWELL_SECONDS = 15.0
"""How long Prefect may take to hear of the end: a few requests. The release does not wait for it, nor do people."""
_FOLDERS: list[str] = []
"""Of the temporary server, which the kernel ends with us."""


def main() -> None:
    """Carry out what the arguments say; the exit code tells only about this process, the ledger about the release."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("paramiko").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    wish = _arguments()
    try:
        asyncio.run(_until_stopped(wish))
    except RunbookError as error:
        log.error("%s", error)
        sys.exit(int(error.exit_code))
    except asyncio.CancelledError:
        log.warning("stopped by a signal; `runbook resume` goes on from the ledger")
        sys.exit(int(ExitCode.HELD))


async def _until_stopped(wish: argparse.Namespace) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with prefect(without=wish.without_prefect) as has_prefect:
        await _drive(wish, has_prefect)


@asynccontextmanager
async def prefect(*, without: bool) -> AsyncIterator[bool]:
    """Point this process at a Prefect server before Prefect is imported; yields whether there is one."""
    os.environ.update({"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"})
    if without:
        os.environ.setdefault("PREFECT_HOME", str(STATE / "prefect"))
        yield False
        return
    if address := os.environ.get("PREFECT_API_URL"):
        # Asked first: Prefect itself would try a dead one for minutes before the release could begin.
        there = await server.is_there(address)
        if not there:
            log.warning("no Prefect server answers at PREFECT_API_URL (%s): going on without one", address)
        yield there
        return
    if (running := up.api_url_if_running()) is not None:
        os.environ.update(server.prefect_settings(up.STATE, running))
        yield True
        return
    with tempfile.TemporaryDirectory(prefix="tds-runbook-prefect-") as folder:
        _FOLDERS.append(folder)
        temporary = server.temporary_server(Path(folder), template=STATE / "templates")
        try:
            api_url = await temporary.__aenter__()
        except RunbookError as error:
            log.warning("no Prefect server (%s): going on without one", error)
            yield False
            return
        try:
            os.environ.update(server.prefect_settings(Path(folder), api_url))
            yield True
        finally:
            await _hand_in_logs()
            await temporary.__aexit__(None, None, None)


async def _hand_in_logs() -> None:
    """Let Prefect's last lines reach the server while it lives: at exit they would be tried for minutes."""
    from prefect.logging.handlers import APILogHandler

    try:
        async with asyncio.timeout(FAREWELL_SECONDS):
            await APILogHandler.aflush()
    except Exception as error:
        log.warning("Prefect's last lines were not handed in: %s", error)


async def _drive(wish: argparse.Namespace, has_prefect: bool) -> None:
    # By its name from here on; loading it also makes the name known when it was given as a path.
    wish.environment = load_environment(wish.environment).name
    if has_prefect and not await _with_prefect(wish):
        log.warning("going on without Prefect, from the phase in the ledger")
        has_prefect = False
    if not has_prefect:
        await _plainly(wish)


async def _with_prefect(wish: argparse.Namespace) -> bool:
    """Make the calls as a flow run; False when Prefect itself broke, which says nothing about the release."""
    # Imported here: Prefect reads its settings when it is imported.
    from prefect.states import get_state_exception

    from flows import release, rollback
    from flows.ending import WORK_DONE

    threading.Thread(target=_leave, args=(WORK_DONE,), daemon=True).start()
    try:
        if wish.verb == "carry_out":
            state = await release.go_on(
                wish.environment, wish.release, take_over=wish.take_over, return_state=True
            )
        else:
            state = await rollback.rollback(
                wish.environment,
                reason=wish.reason,
                requested_by=wish.by,
                take_over=wish.take_over,
                return_state=True,
            )
    except RunbookError:
        raise
    except Exception as error:
        log.warning("Prefect broke off: %s: %s", type(error).__name__, error)
        return False
    # A release that ended badly is a state with a message; one with an error in it is a run that broke off.
    if state.data is None or not (state.is_failed() or state.is_crashed()):
        return True
    # Called from a coroutine it gives a coroutine, which its annotation does not say.
    cause: BaseException = await get_state_exception(state)  # type: ignore[misc]
    if isinstance(cause, RunbookError):
        raise cause
    log.warning("the flow run broke off: %s: %s", type(cause).__name__, cause)
    return False


def _leave(over: WorkDone) -> None:
    """End the process when Prefect does not let it go: to a dead server it would talk for minutes."""
    over.happened.wait()
    time.sleep(FAREWELL_SECONDS)
    log.warning("the work is done, but Prefect did not take its end within %.0f s", FAREWELL_SECONDS)
    for folder in _FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(int(over.exit_code))


async def _plainly(wish: argparse.Namespace) -> None:
    from flows import release, rollback

    if wish.verb == "carry_out":
        await release.by_id(wish.environment, wish.release, take_over=wish.take_over)
    else:
        await rollback.by_hand(
            wish.environment, reason=wish.reason, requested_by=wish.by, take_over=wish.take_over
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="flows.driver")
    parser.add_argument("verb", choices=("carry_out", "roll_back"))
    parser.add_argument("environment")
    parser.add_argument("release")
    parser.add_argument("--by", default="")
    parser.add_argument("--reason", default="")
    parser.add_argument("--take-over", default="")
    parser.add_argument("--without-prefect", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
