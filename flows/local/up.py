"""`runbook up`: a local Prefect server, a work pool and its worker, kept running until somebody says stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from flows.local import process
from flows.local.server import child_environment, prefect_settings
from flows.local.state import STATE as CONTROLLER
from flows.local.supervisor import Say, StopRequest, Supervisor, end_leftovers
from handlers.errors import Refused, RunbookError

STATE = CONTROLLER / "prefect"
PORT = 4200


async def up(
    *, state: Path = STATE, port: int = PORT, deploy: bool = False, stop_seconds: float = 60, say: Say = print
) -> None:
    """Run server and worker until Ctrl-C or SIGTERM; then give runs under way *stop_seconds* to end.

    Port 0 is any that is free.
    """
    with _claimed(state) as claim:
        async with _stoppable(stop_seconds) as wish:
            await end_leftovers(state, wish, say)
            with _listening(port) as listening, _parts(state) as (server, worker):
                house = Supervisor(state=state, listening=listening, server_lock=server, worker_lock=worker)
                try:
                    await house.start(say)
                    if deploy:
                        await deploy_all(state, house.api_url, say)
                    process.write(claim, json.dumps({"pid": os.getpid(), "api_url": house.api_url}))
                    await house.announce(say)
                    await house.keep_running(say)
                finally:
                    wish.stopping = True
                    await house.stop(wish, say)


def api_url_if_running(state: Path = STATE) -> str | None:
    """The API address of the server that `runbook up` runs over *state*; None when none is ready."""
    claim = process.holder(state / "up.lock")
    address: str | None = json.loads(claim).get("api_url") if claim else None
    return address


async def deploy_all(state: Path, api_url: str, say: Say = print) -> None:
    """Put every flow of `prefect.yaml` on the Prefect page."""
    checkout = _checkout()
    say(f"deploying the flows of {checkout / 'prefect.yaml'}")
    log = _fresh(state / "deploy.log")
    deploying = await process.start(
        [sys.executable, "-m", "prefect", "deploy", "--all", "--no-prompt"],
        environment=child_environment(prefect_settings(state, api_url)),
        log=log,
        folder=checkout,
    )
    try:
        status = await deploying.process.wait()
    finally:
        await deploying.stop()
    if status:
        raise RunbookError(f"prefect deploy failed: {process.last_lines(log)}")


@asynccontextmanager
async def _stoppable(seconds: float) -> AsyncIterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into an orderly end of the block, and a later one into haste."""
    loop, task, wish = asyncio.get_running_loop(), asyncio.current_task(), StopRequest(seconds=seconds)
    asked = False

    def on_signal() -> None:
        nonlocal asked
        if asked or wish.stopping or task is None:
            wish.hurry.set()
        else:
            asked = True
            task.cancel()

    # Set before any child starts: one that inherits an ignored SIGINT would not obey SIGTERM either.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        yield wish
    except asyncio.CancelledError:
        if not asked or task is None:
            raise
        task.uncancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextmanager
def _claimed(state: Path) -> Iterator[int]:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with process.locked(state / "up.lock", _already_up) as claim:
        process.write(claim, json.dumps({"pid": os.getpid()}))
        yield claim


def _listening(port: int) -> socket.socket:
    """Take the port now and keep it to the end: servers may die and start again on it."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise Refused(
            f"port {port} of 127.0.0.1 is taken, perhaps by another server: try another --port"
        ) from error


@contextmanager
def _parts(state: Path) -> Iterator[tuple[int, int]]:
    """The locks that server and worker share with us while they live."""
    with (
        process.locked(state / "server.lock", _in_the_way) as server,
        process.locked(state / "worker.lock", _in_the_way) as worker,
    ):
        yield server, worker


def _already_up(claim: str) -> Refused:
    known = json.loads(claim) if claim else {}
    page = known.get("api_url", "").removesuffix("/api") or "still starting"
    return Refused(
        f"runbook up already runs here (process {known.get('pid', '?')}, page {page}): use that one"
    )


def _in_the_way(pid: str) -> Refused:
    return Refused(f"process {pid} of an earlier runbook up does not end: end it, then try again")


def _checkout() -> Path:
    """The folder with prefect.yaml: the working directory, or the checkout that this code runs from."""
    for folder in (Path.cwd(), Path(__file__).parents[2]):
        if (folder / "prefect.yaml").is_file():
            return folder
    raise Refused("there is no prefect.yaml here: run this in a checkout of tds-runbook")


def _fresh(log: Path) -> Path:
    log.unlink(missing_ok=True)
    return log
