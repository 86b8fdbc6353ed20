"""A release that has succeeded and is guarded, and the hours that pass for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Clock, Core
from handlers.gate.day_before import DayBefore
from handlers.phases import guard
from handlers.phases.guard import Taken
from handlers.release.ledger import guards, releases
from handlers.release.ledger.guards import Check
from handlers.release.phase import Phase, Release, Verdict
from tests.integration.hours import before_hours_pass, let_pass
from tests.integration.phases.looks import applied, buried, looked_at


@dataclass(frozen=True, kw_only=True)
class _Passing(Clock):
    """A clock for which time passes at once."""

    url: str

    async def sleep(self, seconds: float) -> None:
        """Everything becomes so much older."""
        await let_pass(self.url, seconds)


@dataclass(kw_only=True)
class Guarded:
    """One guarded release, whose hours pass."""

    core: Core
    run: Release
    engine: AsyncEngine
    url: str
    reports: list[str] = field(default_factory=list)
    """The releases whose report was asked for."""
    keys: int = 0
    passed: float = 0.0

    async def at(self, **after: float) -> None:
        """Let it be so long after the end of the release, given as for a timedelta."""
        seconds = timedelta(**after).total_seconds()
        await let_pass(self.url, seconds - self.passed)
        self.passed = seconds

    async def take(self) -> Taken | None:
        """A taker comes by."""
        clock = _Passing(url=self.url)
        return await guard.take(replace(self.core, clock=clock), self.run, self._report)

    async def checks(self) -> list[Check]:
        """Every check, as the ledger has it."""
        return await guards.checks(self.engine, self.run.id)

    async def now(self) -> Release:
        """The release as it is now."""
        return await releases.get(self.engine, self.run.id)

    async def work(self, number: int) -> None:
        """So many new records are applied by the released workers."""
        for _ in range(number):
            self.keys += 1
            await applied(self.engine, f"good {self.keys}")

    async def fail(self, number: int) -> None:
        """So many new records die in the released workers."""
        for _ in range(number):
            self.keys += 1
            await buried(self.engine, f"bad {self.keys}")

    async def _report(self, _core: Core, run: Release) -> str:
        self.reports.append(run.id)
        return "written"


@asynccontextmanager
async def guarded(
    folder: Path, database_url: str, engine: AsyncEngine, *, after: str = "", before: DayBefore | None = None
) -> AsyncIterator[Guarded]:
    """A release that has just succeeded, and nobody has its lock."""
    await before_hours_pass(database_url)
    await engine.dispose()
    async with looked_at(folder, database_url, after=after, before=before) as (core, run, looker):
        await looker.look(core, run, left=0)
        run = await releases.enter(core.database, run, Phase.SUCCEEDED, verdict=Verdict.PASS, sentence="good")
        yield Guarded(core=core, run=run, engine=engine, url=database_url)
