"""The local Prefect server and its worker: the order in which they start, live and stop."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flows.local import process
from flows.local.pool import POOL, Pool, open_pool
from flows.local.process import Orphan, Process
from flows.local.server import child_environment, prefect_settings, server_command, until_ready
from handlers.environment.load import DIRECTORY_VARIABLE, directory
from handlers.errors import RunbookError, TryAgain

WORKER_SECONDS = 60.0
"""A timeout for a start that hangs. A worker is normally online after a few seconds."""
CRASHES_MAX, CRASHES_SECONDS = 5, 600.0
"""More crashes than CRASHES_MAX within CRASHES_SECONDS end `up`: another restart would not fix the cause."""

PrintLine = Callable[[str], None]


class Stoppable(Protocol):
    """A process that can be stopped: our own, or an orphan of an earlier `up`."""

    async def stop(self) -> None: ...


@dataclass(kw_only=True)
class StopRequest:
    """The request to stop: the first signal stops `up`, a second one ends the wait for unfinished runs."""

    seconds: float
    """How long to wait for unfinished runs."""
    stopping: bool = False
    skip_wait: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(kw_only=True)
class Supervisor:
    """The server and the worker over one state folder."""

    state: Path
    listening: socket.socket
    """The socket that the server serves on, also after a restart."""
    server_lock: int
    worker_lock: int
    database: str = field(default="", repr=False)
    """The address of the server's PostgreSQL, password included: never print it. Empty: SQLite in *state*."""
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """The port of the API and the Prefect page."""
        port: int = self.listening.getsockname()[1]
        return port

    @property
    def api_url(self) -> str:
        """The address of the server's API."""
        return f"http://127.0.0.1:{self.port}/api"

    async def start(self, print_line: PrintLine) -> None:
        """Start the server, mark the runs that an earlier worker lost as crashed, then start the worker."""
        print_line("starting the Prefect server (about 10 s the first time)")
        await self._start_server()
        async with open_pool(self.api_url) as pool:
            await _mark_runs_crashed(pool, "its worker stopped before it ended", print_line)
            print_line("starting the worker")
            await self._start_worker()
            await _until_online(self.processes["worker"], pool)
            await pool.pause(False)

    async def announce(self, print_line: PrintLine) -> None:
        """Print the address of the Prefect page and the commands that start a release."""
        async with open_pool(self.api_url) as pool:
            deployed = await pool.deployments()
        print_line(f"the Prefect page is at http://127.0.0.1:{self.port}")
        print_line("start a release there, or with `runbook release`, or with")
        print_line(f"  export PREFECT_API_URL={self.api_url}")
        if not deployed:
            print_line(
                "  prefect deploy --all --no-prompt      # no flow is deployed yet; or `runbook up --deploy`"
            )
        print_line("  prefect deployment run release/production -p revision=REVISION -p requested_by=NAME")
        print_line("Ctrl-C stops it")

    async def keep_running(self, print_line: PrintLine) -> None:
        """Restart the server or the worker when it crashes. Runs survive both, and report to the new one.

        Raises RunbookError after too many crashes.
        """
        crashes: deque[float] = deque(maxlen=CRASHES_MAX + 1)
        while True:
            name = await self._first_to_end()
            last_line = process.last_lines(self.processes[name].log, 1)
            crashes.append(time.monotonic())
            if len(crashes) > CRASHES_MAX and crashes[-1] - crashes[0] < CRASHES_SECONDS:
                raise RunbookError(f"the {name} keeps crashing: {last_line}")
            print_line(f"the {name} crashed ({last_line}); restarting it")
            await (self._start_server() if name == "server" else self._start_worker())
            print_line(f"the {name} runs again")

    async def stop(self, request: StopRequest, print_line: PrintLine) -> None:
        """Stop worker and server in the right order, if they were started."""
        if "server" in self.processes:
            worker, server = self.processes.get("worker"), self.processes["server"]
            await _shut_down(self.api_url, worker, server, request, print_line)
            print_line("stopped")

    async def _start_server(self) -> None:
        _address(self.state).write_text(self.api_url, encoding="utf-8")
        self.processes["server"] = await self._start(
            server_command(self.listening),
            log="server.log",
            lock=self.server_lock,
            listening=self.listening.fileno(),
            # For the server alone: runs and their hooks have no business there.
            more={"PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database} if self.database else {},
        )
        await until_ready(self.processes["server"], self.api_url)

    async def _start_worker(self) -> None:
        prefect = [sys.executable, "-m", "prefect", "worker", "start"]
        command = [*prefect, "--pool", POOL, "--type", "process", "--name", "runbook-up"]
        self.processes["worker"] = await self._start(command, log="worker.log", lock=self.worker_lock)

    async def _start(
        self,
        command: list[str],
        *,
        log: str,
        lock: int,
        listening: int | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Process:
        # Runs must find the environment files, whichever folder they start in.
        files = {DIRECTORY_VARIABLE: str(directory().resolve())}
        settings = prefect_settings(self.state, self.api_url) | files | dict(more or {})
        environment = child_environment(settings)
        return await process.start(
            command, environment=environment, log=self.state / log, lock=lock, listening=listening
        )

    async def _first_to_end(self) -> str:
        waits = {asyncio.create_task(child.process.wait()): name for name, child in self.processes.items()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[done.pop()]
        finally:
            for wait in waits:
                wait.cancel()


async def stop_orphans(state: Path, request: StopRequest, print_line: PrintLine) -> None:
    """Stop the server and the worker of an earlier `up` that was killed, after their runs have ended."""
    server, worker = Orphan(lock=state / "server.lock"), Orphan(lock=state / "worker.lock")
    if not (server.is_running() or worker.is_running()):
        return
    print_line("an earlier `runbook up` was killed; stopping its orphaned server and worker")
    request.stopping = True
    await _shut_down(_address(state).read_text(encoding="utf-8"), worker, server, request, print_line)
    request.stopping = False


async def _shut_down(
    api_url: str, worker: Stoppable | None, server: Stoppable, request: StopRequest, print_line: PrintLine
) -> None:
    """Pause the pool, wait for unfinished runs, stop the worker, mark the rest as crashed, stop the server."""
    try:
        async with open_pool(api_url) as pool:
            with suppress(TryAgain):
                await pool.pause(True)
                await _until_idle(pool, request, print_line)
            if worker is not None:
                await worker.stop()
            with suppress(TryAgain):
                await _mark_runs_crashed(pool, "`runbook up` was stopped before it ended", print_line)
    finally:
        await server.stop()


async def _until_idle(pool: Pool, request: StopRequest, print_line: PrintLine) -> None:
    """Wait until no run is unfinished, the time has passed, or a second signal ends the wait."""
    if not (runs := await pool.unfinished_runs()):
        return
    names = ", ".join(runs.values())
    print_line(f"waiting up to {request.seconds:.0f} s for {names}; Ctrl-C again skips the wait")
    with suppress(TimeoutError):
        async with asyncio.timeout(request.seconds):
            while not request.skip_wait.is_set() and await pool.unfinished_runs():
                with suppress(TimeoutError):
                    await asyncio.wait_for(request.skip_wait.wait(), 0.5)


async def _mark_runs_crashed(pool: Pool, reason: str, print_line: PrintLine) -> None:
    """Mark every unfinished run as crashed: without a worker it would stay Running and keep its slot."""
    for run, name in (await pool.unfinished_runs()).items():
        print_line(f"run {name} crashed: {reason}. Continue its release with `runbook resume`.")
        await pool.mark_crashed(run, f"{reason}: see `runbook status`")


async def _until_online(worker: Process, pool: Pool) -> None:
    try:
        async with asyncio.timeout(WORKER_SECONDS):
            while not await pool.has_worker():
                if worker.process.returncode is not None:
                    raise RunbookError(f"the worker ended while starting: {process.last_lines(worker.log)}")
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise RunbookError(f"no worker came online in {WORKER_SECONDS:.0f} s: see {worker.log}") from None


def _address(state: Path) -> Path:
    """The file with the address of the server's API. The next `up` needs it to stop orphans."""
    return state / "address"
