"""`runbook up`: a local Prefect server, a work pool and its worker, kept running until Ctrl-C or SIGTERM."""

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
from flows.local.database import usable
from flows.local.server import child_environment, prefect_settings
from flows.local.supervisor import PrintLine, StopRequest, Supervisor, stop_orphans
from handlers.errors import Refused, RunbookError
from handlers.state_folder import STATE as CONTROLLER
from handlers.state_folder import private_folder

STATE = CONTROLLER / "prefect"
PORT = 4200


async def up(
    *,
    state: Path = STATE,
    port: int = PORT,
    deploy: bool = False,
    stop_seconds: float = 60,
    database: str = "",
    print_line: PrintLine = print,
) -> None:
    """Run server and worker until Ctrl-C or SIGTERM; then wait up to *stop_seconds* for unfinished runs.

    Port 0 takes any free port. *database* is the address of a PostgreSQL for the server; without it SQLite in *state*.
    Raises Refused when another `up` runs over the same *state*, the port is in use, or *database* cannot be used.
    """
    address = await usable(database) if database else ""
    with _locked_state(state) as state_lock:
        async with _stoppable(stop_seconds) as request:
            await stop_orphans(state, request, print_line)
            with _listening(port) as listening, _process_locks(state) as (server_lock, worker_lock):
                supervisor = Supervisor(
                    state=state,
                    listening=listening,
                    server_lock=server_lock,
                    worker_lock=worker_lock,
                    database=address,
                )
                try:
                    await supervisor.start(print_line)
                    if deploy:
                        await deploy_all(state, supervisor.api_url, print_line)
                    holder = {"pid": os.getpid(), "api_url": supervisor.api_url}
                    process.write(state_lock, json.dumps(holder))
                    await supervisor.announce(print_line)
                    await supervisor.keep_running(print_line)
                finally:
                    request.stopping = True
                    await supervisor.stop(request, print_line)


def api_url_if_running(state: Path = STATE) -> str | None:
    """The API address of the server that `runbook up` runs over *state*; None when no server is ready."""
    holder = process.holder(state / "up.lock")
    address: str | None = json.loads(holder).get("api_url") if holder else None
    return address


async def deploy_all(state: Path, api_url: str, print_line: PrintLine = print) -> None:
    """Deploy every flow of `prefect.yaml` to the server at *api_url*. Raises RunbookError with the log's end."""
    checkout = _checkout()
    print_line(f"deploying the flows of {checkout / 'prefect.yaml'}")
    log = state / "deploy.log"
    log.unlink(missing_ok=True)
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
    """Let the first Ctrl-C or SIGTERM end the block in order, and a later one skip the wait for runs."""
    loop, task, request = asyncio.get_running_loop(), asyncio.current_task(), StopRequest(seconds=seconds)
    interrupted = False

    def on_signal() -> None:
        nonlocal interrupted
        if interrupted or request.stopping or task is None:
            request.skip_wait.set()
        else:
            interrupted = True
            task.cancel()

    # Set before any child starts: a child that inherits an ignored SIGINT would ignore SIGTERM too.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        yield request
    except asyncio.CancelledError:
        if not interrupted or task is None:
            raise
        task.uncancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextmanager
def _locked_state(state: Path) -> Iterator[int]:
    private_folder(state)
    with process.locked(state / "up.lock", _already_up) as state_lock:
        process.write(state_lock, json.dumps({"pid": os.getpid()}))
        yield state_lock


def _listening(port: int) -> socket.socket:
    """Listen on *port* now and until the end: a server that crashes is restarted on the same port."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise Refused(f"port {port} of 127.0.0.1 is in use; choose another one with --port") from error


@contextmanager
def _process_locks(state: Path) -> Iterator[tuple[int, int]]:
    """The lock files of server and worker. Each process shares its lock with us while it runs."""
    with (
        process.locked(state / "server.lock", _still_running) as server_lock,
        process.locked(state / "worker.lock", _still_running) as worker_lock,
    ):
        yield server_lock, worker_lock


def _already_up(holder_text: str) -> Refused:
    holder = json.loads(holder_text) if holder_text else {}
    page = holder.get("api_url", "").removesuffix("/api") or "still starting"
    return Refused(
        f"`runbook up` already runs here (process {holder.get('pid', '?')}, page {page}): use that one"
    )


def _still_running(pid: str) -> Refused:
    return Refused(
        f"process {pid} of an earlier `runbook up` does not stop. Run `kill {pid}`, then try again."
    )


def _checkout() -> Path:
    """The folder with prefect.yaml: the working directory, or the checkout that this code runs from."""
    for folder in (Path.cwd(), Path(__file__).parents[2]):
        if (folder / "prefect.yaml").is_file():
            return folder
    raise Refused("no prefect.yaml found: run this command in a checkout of tds-runbook")
