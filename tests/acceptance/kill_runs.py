"""A release whose driver dies at one point, on a fresh target, and which the timer then carries on."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from handlers.environment.load import load_environment
from rehearsal.consistency.check import check
from rehearsal.faults.fault import parse
from rehearsal.faults.inject import Injector
from rehearsal.faults.timer import Timer
from rehearsal.faults.world import World
from tests.acceptance.killing import Place, end

SPEED = 150.0
LIMIT_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class KillRun:
    """What became of a release whose driver was killed."""

    died: bool
    """Whether the driver passed the point."""
    phase: str
    wrong: tuple[str, ...]
    """What must not be, and is."""
    log: str


async def kill_at(point: str, home: Path, story: str, *faults: str) -> KillRun:
    """Release the story's revision, kill the driver at *point*, and let `runbook resume --due` go on."""
    async with Place.make(home, story, speed=SPEED) as place:
        folder = home / "kill"
        folder.mkdir()
        place.extra = {
            "PYTHONPATH": str(Path(__file__).with_name("killer")),
            "KILL_ROOT": str(Path(__file__).resolve().parents[2]),
            "KILL_AT": point,
            "KILL_FOLDER": str(folder),
        }
        run = await place.plan()
        engine = place.target.engine()
        world = World(
            target=place.target,
            release_id=run.id,
            variables=place.variables,
            prefect_url=os.environ.get("PREFECT_API_URL", ""),
            clock_file=home / "clock",
        )
        names = [host.name for host in place.target.hosts]
        injector = Injector(world, [parse(fault, names) for fault in faults], engine)
        timer = Timer(world, injector, engine, limit_seconds=LIMIT_SECONDS)
        received: list[UUID] = []
        try:
            async with place.live_traffic(run, received), injector.running():
                driver = place.drive(run, "--without-prefect")
                collecting = asyncio.create_task(asyncio.to_thread(driver.wait))
                try:
                    await timer.until_at_rest()
                finally:
                    await end(driver)
                    await collecting
            window = load_environment(place.environment).watch.window_seconds
            seen = await check(place.target, engine, run.id, sent=received, window_seconds=window)
            rows = await place.rows("SELECT phase::text FROM runbook.release WHERE id = $1", run.id)
        finally:
            await engine.dispose()
        return KillRun(
            died=(folder / "killed").exists(),
            phase=rows[0]["phase"],
            wrong=(*world.wrong, *seen.disagreements),
            log=place.driver_log(),
        )
