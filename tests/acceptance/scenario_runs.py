"""A release on a fresh target, what breaks meanwhile, and what people ask of it, until it has come to rest.

Its driver may die at one point: then the timer or its person carries it on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from uuid import UUID

from handlers.environment.load import load_environment
from handlers.release.phase import Release
from rehearsal.consistency.check import check
from rehearsal.faults.fault import Moment, parse
from rehearsal.faults.inject import Injector
from rehearsal.faults.moments import Moments
from rehearsal.faults.timer import Timer
from rehearsal.faults.world import World
from tests.acceptance.killing import Place, end, killing_at

SPEED = 150.0
LIMIT_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A release, what breaks meanwhile, and what people ask of it."""

    story: str
    end: str
    """The phase in which it ends, whether or not its controller is killed."""
    faults: tuple[str, ...] = ()
    asked: tuple[tuple[str, str], ...] = ()
    """Commands while it runs, each with the moment that comes first: `("draining", "hold")`."""
    then: tuple[str, ...] = ()
    """Commands after it has come to rest, one after the other."""
    edits_a_tree: bool = False
    """Somebody edits a file on a host after the plan: the preparation of that host refuses it."""
    speed: float = SPEED
    """How many seconds of the watch pass in one."""
    expected: tuple[str, ...] = ()
    """Parts of what the check may say about it."""


@dataclass(frozen=True, kw_only=True)
class ScenarioRun:
    """What became of a release."""

    died: bool
    """Whether a driver passed the point at which it was to be killed."""
    phase: str
    commands: dict[str, CompletedProcess[str]]
    """Each command of a person by its verb."""
    wrong: tuple[str, ...]
    """What must not be, and is."""
    log: str


@dataclass(kw_only=True)
class _Course:
    """One release on its way."""

    place: Place
    run: Release
    world: World
    timer: Timer
    received: list[UUID] = field(default_factory=list)
    commands: dict[str, CompletedProcess[str]] = field(default_factory=dict)

    async def until_at_rest(self) -> None:
        """Start the driver, and let the timer carry the release on."""
        driver = self.place.drive(self.run, "--without-prefect")
        collecting = asyncio.create_task(asyncio.to_thread(driver.wait))
        try:
            await self.timer.until_at_rest()
        finally:
            await end(driver)
            await collecting
        if await self.phase() == "planned":
            # Nobody has started it yet, so that the timer leaves it alone: its person asks for it again.
            await self.command("resume")
            await self.timer.until_at_rest()

    async def phase(self) -> str:
        """The phase of the release."""
        rows = await self.place.rows("SELECT phase::text FROM runbook.release WHERE id = $1", self.run.id)
        phase: str = rows[0]["phase"]
        return phase

    async def command(self, typed: str) -> None:
        """What a person types: a verb, and options of its own."""
        where = ("-e", self.place.environment, "--reason", "a test", "--json", "--without-prefect")
        words = (*where, "--yes") if typed.startswith("rollback") else where
        self.commands[typed] = await self.place.command(*typed.split(), *words, seconds=LIMIT_SECONDS)


async def play(home: Path, scenario: Scenario, *, kill_at: str = "") -> ScenarioRun:
    """Release the story's revision, kill a driver at the point *kill_at*, and let `runbook resume --due` go on."""
    async with Place.make(home, scenario.story, speed=scenario.speed, cables=bool(scenario.faults)) as place:
        if kill_at:
            place.extra = killing_at(kill_at, home)
        async with _started(place, scenario) as course:
            if scenario.edits_a_tree:
                edited = place.target.hosts[-1].checkout / "web.py"
                edited.write_text(f"{edited.read_text()}\n# a quick fix\n")
            await course.until_at_rest()
            for verb in scenario.then:
                await course.command(verb)
                await course.timer.until_at_rest()
        engine = place.target.engine()
        try:
            window = load_environment(place.environment).watch.window_seconds
            seen = await check(
                place.target,
                engine,
                course.run.id,
                sent=course.received,
                window_seconds=window,
                expected=scenario.expected,
            )
        finally:
            await engine.dispose()
        return ScenarioRun(
            died=(home / "kill" / "killed").exists(),
            phase=await course.phase(),
            commands=course.commands,
            wrong=(*course.world.wrong, *seen.disagreements),
            log=place.driver_log(),
        )


@asynccontextmanager
async def _started(place: Place, scenario: Scenario) -> AsyncIterator[_Course]:
    """A planned release with its webhooks, its faults, and the person who will ask something of it."""
    run = await place.plan()
    engine = place.target.engine()
    world = World(
        target=place.target,
        release_id=run.id,
        variables=place.variables,
        prefect_url=os.environ.get("PREFECT_API_URL", ""),
        clock_file=place.home / "clock",
    )
    names = [host.name for host in place.target.hosts]
    injector = Injector(world, [parse(fault, names) for fault in scenario.faults], engine)
    course = _Course(
        place=place,
        run=run,
        world=world,
        timer=Timer(world, injector, engine, limit_seconds=LIMIT_SECONDS),
    )
    moments = Moments(engine, run.id)
    tasks = [asyncio.create_task(moments.watch())]
    tasks += [asyncio.create_task(_ask(course, moments, *asked)) for asked in scenario.asked]
    try:
        async with place.live_traffic(course.received), injector.running():
            yield course
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await engine.dispose()


async def _ask(course: _Course, moments: Moments, moment: str, verb: str) -> None:
    await moments.reached(Moment(name=moment))
    await course.command(verb)
