"""The local Prefect server and its worker: the order in which they start, live and stop."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flows.local import process
from flows.local.pool import POOL, Pool, open_pool
from flows.local.process import Leftover, Process
from flows.local.server import child_environment, prefect_settings, server_command, until_ready
from handlers.environment.load import DIRECTORY_VARIABLE, directory
from handlers.errors import RunbookError, TryAgain

WORKER_SECONDS = 60.0
"""A worker is online a few seconds after its start; this only ends a start that hangs."""
DEATHS_MAX, DEATHS_SECONDS = 5, 600.0
"""When more parts than this die within so many seconds, another start does not cure the cause."""

Say = Callable[[str], None]


class Stoppable(Protocol):
    """A process that can be asked to end: our own, or one that an earlier `up` left behind."""

    async def stop(self) -> None: ...


@dataclass(kw_only=True)
class StopRequest:
    """What the person at the keyboard wants: one signal stops, one while stopping ends the waiting."""

    seconds: float
    """How long to wait for runs under way."""
    stopping: bool = False
    hurry: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(kw_only=True)
class Supervisor:
    """The server and the worker over one state folder."""

    state: Path
    listening: socket.socket
    """Where the server serves, also the next one when it dies."""
    server_lock: int
    worker_lock: int
    parts: dict[str, Process] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """The port of the page."""
        port: int = self.listening.getsockname()[1]
        return port

    @property
    def api_url(self) -> str:
        """Where the server answers."""
        return f"http://127.0.0.1:{self.port}/api"

    async def start(self, say: Say) -> None:
        """Server first, then a word for the runs that an earlier worker lost, then the worker."""
        say("starting the Prefect server (about 10 s the first time)")
        await self._start_server()
        async with open_pool(self.api_url) as pool:
            await _give_up_runs(pool, "its worker ended before it did", say)
            say("starting the worker")
            await self._start_worker()
            await _until_online(self.parts["worker"], pool)
            await pool.pause(False)

    async def announce(self, say: Say) -> None:
        """Say where the page is and how a release is started."""
        async with open_pool(self.api_url) as pool:
            deployed = await pool.deployments()
        say(f"the Prefect page is at http://127.0.0.1:{self.port}")
        say("start a release there, or with runbook release, or with")
        say(f"  export PREFECT_API_URL={self.api_url}")
        if not deployed:
            say("  prefect deploy --all --no-prompt      # nothing is deployed yet; or runbook up --deploy")
        say("  prefect deployment run release/production -p revision=REVISION")
        say("Ctrl-C stops it")

    async def keep_running(self, say: Say) -> None:
        """Start a part again when it dies: runs outlive both, and report to the new one."""
        deaths: deque[float] = deque(maxlen=DEATHS_MAX + 1)
        while True:
            name = await self._first_to_die()
            words = process.last_lines(self.parts[name].log, 1)
            deaths.append(time.monotonic())
            if len(deaths) > DEATHS_MAX and deaths[-1] - deaths[0] < DEATHS_SECONDS:
                raise RunbookError(f"the {name} keeps dying: {words}")
            say(f"the {name} died ({words}); starting it again")
            await (self._start_server() if name == "server" else self._start_worker())
            say(f"the {name} is back")

    async def stop(self, wish: StopRequest, say: Say) -> None:
        """End what was started, in the right order."""
        if "server" in self.parts:
            await _wind_down(self.api_url, self.parts.get("worker"), self.parts["server"], wish, say)
            say("stopped")

    async def _start_server(self) -> None:
        _address(self.state).write_text(self.api_url, encoding="utf-8")
        self.parts["server"] = await self._start(
            server_command(self.listening),
            log="server.log",
            lock=self.server_lock,
            listening=self.listening.fileno(),
        )
        await until_ready(self.parts["server"], self.api_url)

    async def _start_worker(self) -> None:
        prefect = [sys.executable, "-m", "prefect", "worker", "start"]
        command = [*prefect, "--pool", POOL, "--type", "process", "--name", "runbook-up"]
        self.parts["worker"] = await self._start(command, log="worker.log", lock=self.worker_lock)

    async def _start(
        self, command: list[str], *, log: str, lock: int, listening: int | None = None
    ) -> Process:
        # Runs must find the environment files from whatever folder they are started in.
        files = {DIRECTORY_VARIABLE: str(directory().resolve())}
        settings = prefect_settings(self.state, self.api_url) | files
        environment = child_environment(settings)
        return await process.start(
            command, environment=environment, log=self.state / log, lock=lock, listening=listening
        )

    async def _first_to_die(self) -> str:
        waits = {asyncio.create_task(p.process.wait()): name for name, p in self.parts.items()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[done.pop()]
        finally:
            for wait in waits:
                wait.cancel()


async def end_leftovers(state: Path, wish: StopRequest, say: Say) -> None:
    """An `up` that was killed leaves server and worker to the runs that they carry; take them down first."""
    server, worker = Leftover(lock=state / "server.lock"), Leftover(lock=state / "worker.lock")
    if not (server.lives() or worker.lives()):
        return
    say("an earlier runbook up was killed; ending the server and the worker that it left behind")
    wish.stopping = True
    await _wind_down(_address(state).read_text(encoding="utf-8"), worker, server, wish, say)
    wish.stopping = False


async def _wind_down(
    api_url: str, worker: Stoppable | None, server: Stoppable, wish: StopRequest, say: Say
) -> None:
    """No new runs; wait for those under way; then the worker, then the server: nothing is cut unsaid."""
    try:
        async with open_pool(api_url) as pool:
            with suppress(TryAgain):
                await pool.pause(True)
                await _until_idle(pool, wish, say)
            if worker is not None:
                await worker.stop()
            with suppress(TryAgain):
                await _give_up_runs(pool, "runbook up was stopped before it ended", say)
    finally:
        await server.stop()


async def _until_idle(pool: Pool, wish: StopRequest, say: Say) -> None:
    """Wait for the runs under way, until the time is up or a second signal asks for haste."""
    if not (runs := await pool.under_way()):
        return
    names = ", ".join(runs.values())
    say(f"waiting up to {wish.seconds:.0f} s for {names}; Ctrl-C again cuts the waiting short")
    with suppress(TimeoutError):
        async with asyncio.timeout(wish.seconds):
            while not wish.hurry.is_set() and await pool.under_way():
                with suppress(TimeoutError):
                    await asyncio.wait_for(wish.hurry.wait(), 0.5)


async def _give_up_runs(pool: Pool, why: str, say: Say) -> None:
    """Runs that no worker carries any more would stay Running for ever, and keep their slots."""
    for run, name in (await pool.under_way()).items():
        say(f"run {name} is over: {why}; its release goes on with runbook resume")
        await pool.mark_crashed(run, f"{why}: see runbook status")


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
    """The file that says where the server answers, for the `up` that comes after one that was killed."""
    return state / "address"
