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
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from flows import server, up
from flows.state import STATE
from handlers import config
from handlers.errors import ExitCode, RunbookError

log = logging.getLogger(__name__)


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
    if os.environ.get("PREFECT_API_URL"):
        yield True
        return
    if (running := up.api_url_if_running()) is not None:
        os.environ.update(server.prefect_settings(up.STATE, running))
        yield True
        return
    with tempfile.TemporaryDirectory(prefix="tds-runbook-prefect-") as folder:
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
            await temporary.__aexit__(None, None, None)


async def _drive(wish: argparse.Namespace, has_prefect: bool) -> None:
    # Imported here: Prefect reads its settings when it is imported.
    from flows import release, rollback

    # By its name from here on; loading it also makes the name known when it was given as a path.
    wish.environment = config.load(wish.environment).name
    match wish.verb:
        case "carry_out" if has_prefect:
            await release.go_on(wish.environment, wish.release, take_over=wish.take_over, return_state=True)
        case "carry_out":
            await release.by_id(wish.environment, wish.release, take_over=wish.take_over)
        case "roll_back" if has_prefect:
            await rollback.rollback(
                wish.environment,
                reason=wish.reason,
                requested_by=wish.by,
                take_over=wish.take_over,
                return_state=True,
            )
        case "roll_back":
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
