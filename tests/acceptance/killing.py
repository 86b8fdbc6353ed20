"""A temporary target, and drivers of its releases that are killed at chosen points."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from flows.local import stage
from handlers.core import open_core
from handlers.environment import last_good
from handlers.environment.load import load_environment
from handlers.phases import begin
from handlers.phases.plan import make_plan
from handlers.release.phase import Phase, Release
from handlers.release.planned import EVERYTHING
from rehearsal.target import Target

POINT_SECONDS = 900
"""The timeout for a point; it only ends a failed test."""
COMMAND_SECONDS = 900
"""The timeout of a command; it only ends a failed test. A small machine takes minutes for a rollback."""
WHY = "its process was killed"


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point in the course of a release: from then on its query returns true."""

    name: str
    query: str


@dataclass(kw_only=True)
class Place:
    """A target in this process, and the commands of one user."""

    target: Target
    home: Path
    ledger: asyncpg.Connection
    speed: float = 120.0
    extra: dict[str, str] = field(default_factory=dict)
    """More variables of the user's shell."""

    @classmethod
    @asynccontextmanager
    async def make(
        cls, home: Path, story: str, *, speed: float = 120.0, cables: bool = False
    ) -> AsyncIterator[Place]:
        """A new target for *story*, removed at the end. With *cables* its hosts can be cut off."""
        async with Target.create(story, folder=home, cables=cables, speed=speed) as target:
            ledger = await asyncpg.connect(target.database_url)
            # The commands and this process are one user's: they keep their copies of the environment file together.
            state = home / "state" / "tds-runbook"
            state.mkdir(parents=True, exist_ok=True)
            last_good.FOLDER.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                (state / "environments").symlink_to(last_good.FOLDER)
            place = cls(target=target, home=home, ledger=ledger, speed=speed)
            try:
                yield place
            finally:
                await place.ledger.close()

    @property
    def environment(self) -> str:
        """The environment file."""
        return str(self.target.environment_path)

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the user's shell, and the marker that ends leftover processes with the target."""
        ours = {"XDG_STATE_HOME": str(self.home / "state"), "TDS_REHEARSAL": self.target.id}
        return {**os.environ, **ours, **self.extra}

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Rows of the target's database, read independently of the runbook."""
        return [dict(row) for row in await self.ledger.fetch(query, *values)]

    async def reconnect(self) -> None:
        """Open a new connection after the database was down."""
        self.ledger.terminate()
        self.ledger = await asyncpg.connect(self.target.database_url)

    async def plan(
        self,
        revision: str | None = None,
        requested_by: str = "tests",
        scope: tuple[Phase, ...] = EVERYTHING,
    ) -> Release:
        """Record a planned release, as `runbook release` does before it starts its driver."""
        async with open_core(load_environment(self.environment)) as core:
            release_plan = await make_plan(core, revision or self.target.revision, scope)
            return await begin.record_release(
                core, release_plan, requested_by=requested_by, reason="a test", speed=self.speed
            )

    def drive(self, run: Release, *options: str, verb: str = "execute") -> subprocess.Popen[bytes]:
        """Start a driver in its own session, as the command line does."""
        with (self.home / f"driver-{self.target.id}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.driver", verb, self.environment, run.id, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self.variables,
            )

    def driver_log(self) -> str:
        """The end of the log of all drivers, for a failed test."""
        path = self.home / f"driver-{self.target.id}.log"
        return path.read_text(errors="replace")[-6000:] if path.exists() else ""

    async def command(
        self, *words: str, seconds: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the same user to its end, without blocking the event loop."""
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "flows.cli", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env=self.variables,
            stdin=subprocess.DEVNULL,
        )

    async def at(self, point: Point, driver: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until the point is reached."""
        deadline = time.monotonic() + POINT_SECONDS
        while not await self.ledger.fetchval(point.query):
            assert time.monotonic() < deadline, f"never at {point.name}: {self.driver_log()}"
            ended = driver is not None and driver.poll() is not None
            assert not ended, f"the driver ended before {point.name}: {self.driver_log()}"
            await asyncio.sleep(0.02)

    async def kill_at(self, run: Release, points: Sequence[Point]) -> None:
        """For each point: start a driver, and kill it when the point is reached. The next one needs no force."""
        for point in points:
            driver = self.drive(run, "--without-prefect")
            try:
                await self.at(point, driver)
            finally:
                await end(driver)

    async def running(self) -> dict[str, str | None]:
        """The revision that the web process and the workers of each host report; None when no process answers."""
        answers: dict[str, str | None] = {}
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            for host in self.target.hosts:
                try:
                    answer = (await http.get(host.health_url)).json()
                except (httpx.HTTPError, ValueError):
                    answers[host.name] = None
                    continue
                assert answer["workers"]["revisions"] in ([answer["revision"]], []), answer
                answers[host.name] = answer["revision"]
        return answers

    @asynccontextmanager
    async def live_traffic(self, received: list[UUID] | None = None) -> AsyncIterator[None]:
        """Live webhooks until the end of the block, also while no release has begun. *received* gets their ids."""
        async with stage.live_traffic(self.target, received if received is not None else []):
            yield


def killing_at(point: str, home: Path) -> dict[str, str]:
    """The variables with which the next driver kills itself at *point* (kill_points.py); later ones pass it."""
    folder = home / "kill"
    folder.mkdir(exist_ok=True)
    return {
        "PYTHONPATH": str(Path(__file__).with_name("killer")),
        "KILL_ROOT": str(Path(__file__).resolve().parents[2]),
        "KILL_AT": point,
        "KILL_FOLDER": str(folder),
    }


async def end(driver: subprocess.Popen[bytes]) -> None:
    """Kill a driver with SIGKILL, as the OOM killer does, and wait until it is gone."""
    if driver.poll() is None:
        os.kill(driver.pid, signal.SIGKILL)
    await asyncio.to_thread(driver.wait, 60)


def last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The object in the last line of stdout."""
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
