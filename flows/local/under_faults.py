"""A release under faults: a driver that may die, a timer that carries the release on, and a view of both."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import follow
from handlers.errors import LEDGER_AWAY
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release
from rehearsal.faults import controller
from rehearsal.faults.fault import Fault, Kind
from rehearsal.faults.inject import Injector
from rehearsal.faults.timer import Timer
from rehearsal.faults.world import World
from rehearsal.target import Target

LIMIT_SECONDS = 900.0
"""How long a release may take besides its faults, before it counts as abandoned."""


class UnderFaults:
    """One release, its faults and its timer."""

    def __init__(self, target: Target, run: Release, faults: Sequence[Fault], engine: AsyncEngine) -> None:
        self._target = target
        self._run = run
        clock_file = target.folder / "clock"
        library = controller.clock_library()
        if library is not None and any(fault.kind is Kind.CLOCK_JUMP for fault in faults):
            # From now on for each process that we start: all of them are the controller's.
            os.environ.update(controller.clock_variables(library, clock_file))
        self._world = World(
            target=target,
            release_id=run.id,
            variables=os.environ,
            prefect_url=os.environ["PREFECT_API_URL"],
            clock_file=clock_file,
        )
        self._injector = Injector(self._world, faults, engine)
        lasting = sum(fault.seconds or 0 for fault in faults if fault.kind is not Kind.CLOCK_JUMP)
        self._timer = Timer(self._world, self._injector, engine, limit_seconds=LIMIT_SECONDS + 2 * lasting)

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Target, run: Release, faults: Sequence[Fault]) -> AsyncIterator[UnderFaults]:
        """With a connection of our own to the ledger, which the faults are timed by."""
        engine = target.engine()
        try:
            yield cls(target, run, faults, engine)
        finally:
            await engine.dispose()

    async def release(self, database: AsyncEngine, out: Console | None) -> Release:
        """Start the driver and the faults; return the release when it is at rest and everything is mended."""
        async with self._injector.running():
            driver = follow.start("execute", str(self._target.environment_path), self._run.id)
            resting = asyncio.create_task(self._timer.until_at_rest())
            try:
                await follow.follow(
                    database,
                    self._run.environment,
                    self._run.id,
                    driver=_AtRest(process=driver.process, log=driver.log, resting=resting),
                    out=out,
                    until=frozenset(Phase),
                )
                await resting
            finally:
                resting.cancel()
                await asyncio.wait({resting})
        return await self._ended(database)

    async def _ended(self, database: AsyncEngine) -> Release:
        while True:
            try:
                return await releases.get(database, self._run.id)
            except LEDGER_AWAY:
                # It has just been started again, and is still recovering.
                await asyncio.sleep(0.5)

    def as_json(self) -> tuple[dict[str, Any], ...]:
        """What became of each fault."""
        return tuple(one.as_json() for one in self._injector.injected)

    @property
    def wrong(self) -> Sequence[str]:
        """What must not happen, and was seen."""
        return self._world.wrong


@dataclass(frozen=True, kw_only=True)
class _AtRest(follow.Driver):
    """Ends for the view when the release is at rest, whichever process has brought it there."""

    resting: asyncio.Task[None]

    def ended(self) -> bool:
        # Also collects the exit status of the first driver: a zombie would count as a controller.
        self.process.poll()
        return self.resting.done()

    def refused(self) -> bool:
        return False
