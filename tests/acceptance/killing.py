"""A target of our own, and drivers over it that are killed in the middle of what they do."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.phases import begin
from handlers.phases.plan import make_plan
from handlers.release.phase import Release
from rehearsal.target import Target
from rehearsal.traffic import traffic

POINT_SECONDS = 240
"""A moment that has not come by then never will: this only ends a test that has failed."""
WHY = "its process was killed"


@dataclass(frozen=True, kw_only=True)
class Point:
    """A moment of a release, as a question to its ledger that is true then."""

    name: str
    query: str


@dataclass(kw_only=True)
class Place:
    """A target in this process, and the commands of one user over it."""

    target: Target
    home: Path
    ledger: asyncpg.Connection
    speed: float = 120.0

    @classmethod
    @asynccontextmanager
    async def make(cls, home: Path, story: str, *, speed: float = 120.0) -> AsyncIterator[Place]:
        """A new target for *story*, gone at the end."""
        async with Target.create(story, folder=home) as target:
            ledger = await asyncpg.connect(target.database_url)
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
        """What the user's shell has; the mark lets whatever is left be found with the target."""
        return {**os.environ, "XDG_STATE_HOME": str(self.home / "state"), "TDS_REHEARSAL": self.target.id}

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """What the target's database says, asked by ourselves."""
        return [dict(row) for row in await self.ledger.fetch(query, *values)]

    async def reconnect(self) -> None:
        """Ask through a new connection, after the database was away."""
        self.ledger.terminate()
        self.ledger = await asyncpg.connect(self.target.database_url)

    async def plan(self, revision: str | None = None, requested_by: str = "tests") -> Release:
        """Write a release down, as `runbook release` does before it starts its driver."""
        async with open_core(load_environment(self.environment)) as core:
            made = await make_plan(core, revision or self.target.revision)
            return await begin.record_release(
                core, made, requested_by=requested_by, reason="a test", speed=self.speed
            )

    def drive(self, run: Release, *options: str, verb: str = "execute") -> subprocess.Popen[bytes]:
        """Start a driver of its own session, as the command line does."""
        with (self.home / f"driver-{self.target.id}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.driver", verb, self.environment, run.id, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self.variables,
            )

    def said(self) -> str:
        """The end of what the drivers have said, for a failed test."""
        path = self.home / f"driver-{self.target.id}.log"
        return path.read_text(errors="replace")[-6000:] if path.exists() else ""

    async def command(self, *words: str, seconds: float = 150) -> subprocess.CompletedProcess[str]:
        """A command of the same user, run to its end beside everything else."""
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
        """Wait until the moment has come."""
        deadline = time.monotonic() + POINT_SECONDS
        while not await self.ledger.fetchval(point.query):
            assert time.monotonic() < deadline, f"never at {point.name}: {self.said()}"
            ended = driver is not None and driver.poll() is not None
            assert not ended, f"the driver ended before {point.name}: {self.said()}"
            await asyncio.sleep(0.02)

    async def kill_at(self, run: Release, points: Sequence[Point], *, begun: bool = False) -> None:
        """Start a driver again and again, and kill each when its moment has come."""
        for point in points:
            driver = self.drive(run, "--without-prefect", *(("--take-over", WHY) if begun else ()))
            begun = True
            try:
                await self.at(point, driver)
            finally:
                await end(driver)

    async def running(self) -> dict[str, str | None]:
        """The revision that the running process of each host names, and its workers'."""
        answers: dict[str, str | None] = {}
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
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
    async def live_traffic(self, run: Release) -> AsyncIterator[None]:
        """Webhooks that arrive from the moment when the release watches."""
        stop = asyncio.Event()
        looking = await asyncpg.connect(self.target.database_url)

        async def send() -> None:
            phase = ""
            while phase != "watching":
                await asyncio.sleep(0.1)
                with contextlib.suppress(asyncpg.PostgresError, OSError):
                    phase = await looking.fetchval(
                        "SELECT phase::text FROM runbook.release WHERE id = $1", run.id
                    )
            engine = self.target.engine()
            try:
                await traffic(engine, stop, 3.0)
            finally:
                await engine.dispose()

        sending = asyncio.create_task(send())
        try:
            yield
        finally:
            stop.set()
            sending.cancel()
            await asyncio.wait({sending})
            await looking.close()


async def end(driver: subprocess.Popen[bytes]) -> None:
    """Kill a driver as the kernel would when memory is short, and wait until it is gone."""
    if driver.poll() is None:
        os.kill(driver.pid, signal.SIGKILL)
    await asyncio.to_thread(driver.wait, 10)


def last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The object in the last line of stdout."""
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told
