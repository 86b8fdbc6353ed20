"""Two machines with one Prefect, by the recipe of deploy/prefect/: releases at once, and a machine that is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.release import lock
from handlers.release.ledger import releases
from handlers.release.phase import FINISHED, Phase, Release
from rehearsal.consistency.check import check
from rehearsal.target import Target
from rehearsal.webhooks.traffic import traffic
from tests.flows.local_prefect import marked
from tests.flows.machines import MISSING, Machine, database, recipe, redis
from tests.flows.test_prefect_deploy import WATCH
from tests.integration.worker.steps import until

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(MISSING), reason=f"not on this machine: {', '.join(MISSING)}"),
]

NAMES = ("one", "two", "three")
LATE = frozenset({Phase.DRAINING, Phase.WATCHING, *FINISHED})


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two machines that share PostgreSQL and Redis; two workers on the first, one on the second."""
    (tmp_path / "environments").mkdir()
    (tmp_path / "redis").mkdir()
    with ExitStack() as stack:
        address = stack.enter_context(database(tmp_path / "postgres"))
        settings = recipe(address, stack.enter_context(redis(tmp_path / "redis")))
        both = tuple(
            Machine(
                name=name,
                folder=tmp_path / name,
                settings=settings,
                environments=tmp_path / "environments",
            )
            for name in ("a", "b")
        )
        for machine in both:
            stack.callback(machine.lose)
        a, b = both
        a.prefect("server", "database", "upgrade", "-y")
        a.start_all(workers=2)
        # Its worker comes later, so that the first machine carries something.
        b.start_all(workers=0)
        yield a, b


@asynccontextmanager
async def targets(folder: Path) -> AsyncIterator[dict[str, tuple[Target, AsyncEngine]]]:
    """A target for each environment, with live traffic in its watch."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        found = {}
        for name in NAMES:
            target = await stack.enter_async_context(Target.create("good", speed=1))
            engine = target.engine()
            stack.push_async_callback(engine.dispose)
            words = target.environment_path.read_text(encoding="utf-8")
            words = words.replace('name = "rehearsal"', f'name = "{name}"', 1).replace("[watch]\n", WATCH)
            (folder / f"{name}.toml").write_text(words, encoding="utf-8")
            found[name] = (target, engine)
        sending = [asyncio.create_task(send(name, engine, stop)) for name, (_, engine) in found.items()]
        try:
            yield found
        finally:
            stop.set()
            await asyncio.gather(*sending)


async def send(name: str, engine: AsyncEngine, stop: asyncio.Event) -> None:
    """Webhooks from the watch on: before it the broken revision would make them dead letters."""
    while not stop.is_set():
        if await phase(engine, name) is Phase.WATCHING:
            await traffic(engine, stop, per_second=4)
        await asyncio.sleep(0.2)


async def phase(engine: AsyncEngine, name: str) -> Phase | None:
    """Where the newest release is; None before it."""
    run = await releases.latest(engine, name)
    return run.phase if run is not None else None


async def carries(machine: Machine, engines: Mapping[str, AsyncEngine]) -> bool:
    """Whether the controllers of these releases run on this machine: each lock names the process of its holder."""
    pids = {line.split()[0] for line in await asyncio.to_thread(marked, machine.marker)}
    holders = [await lock.holder(engine, name) for name, engine in engines.items()]
    return all(holder is not None and holder.name.rpartition(":")[2] in pids for holder in holders)


async def newest(engines: Mapping[str, AsyncEngine]) -> dict[str, Release]:
    """The newest release of each environment."""
    found = {name: await releases.latest(engine, name) for name, engine in engines.items()}
    return {name: run for name, run in found.items() if run is not None}


async def reached(
    engines: Mapping[str, AsyncEngine], phases: frozenset[Phase], enough: Callable[[list[bool]], bool]
) -> bool:
    """Whether any or all of the releases are in one of the phases, after a moment."""
    await asyncio.sleep(0.1)
    return enough([await phase(engine, name) in phases for name, engine in engines.items()])


async def begin(machine: Machine, name: str, revision: str) -> None:
    """Start a release as the page of this machine does."""
    fields = {"environment": name, "revision": revision, "requested_by": "x", "reason": "y"}
    async with httpx.AsyncClient(base_url=machine.api_url, trust_env=False, timeout=20) as http:
        found = (await http.get("/deployments/name/release/anywhere")).raise_for_status().json()
        begun = await http.post(f"/deployments/{found['id']}/create_flow_run", json={"parameters": fields})
        begun.raise_for_status()


async def test_releases_end_once_although_a_worker_and_then_a_machine_are_lost(
    machines: tuple[Machine, Machine],
) -> None:
    """Three at once. What the lost machine carried is carried on by the other, and nothing happens twice."""
    a, b = machines
    async with targets(a.environments) as found, asyncio.timeout(1500):
        # Its pool, its deployments: made on one machine, known to both.
        await asyncio.to_thread(
            a.prefect, "work-pool", "create", "runbook", "--type", "process", "--overwrite"
        )
        await asyncio.to_thread(a.prefect, "--no-prompt", "deploy", "--all", timeout=600)
        engines = {name: engine for name, (_, engine) in found.items()}
        for name in NAMES[:2]:
            await begin(a, name, found[name][0].revision)
        await until(lambda: carries(a, {name: engines[name] for name in NAMES[:2]}), 120)
        b.start("worker@", "1")
        await begin(b, NAMES[2], found[NAMES[2]][0].revision)
        await until(lambda: reached(engines, LATE, any), 600)
        a.kill("worker@2")
        await until(lambda: reached(engines, LATE, all), 600)
        await asyncio.to_thread(a.lose)
        left = await newest(engines)
        lost = {name: left[name].token for name in NAMES[:2] if left[name].phase not in FINISHED}
        assert lost, "there was nothing to take over"
        await until(lambda: reached(engines, FINISHED, all), 900)
        for name, (target, engine) in found.items():
            [run] = await releases.history(engine, name)
            assert run.phase is Phase.SUCCEEDED, (name, run.reason, b.log())
            # Somebody took it over: the lock has a new token.
            assert name not in lost or (run.token or 0) > (lost[name] or 0)
            seen = await check(target, engine, run.id, sent=(), window_seconds=6)
            assert seen.disagreements == (), name
            async with engine.connect() as tx:
                twice = await tx.execute(
                    text("SELECT host, kind FROM runbook.operation GROUP BY 1, 2 HAVING count(*) > 1")
                )
                assert twice.all() == [], name
    async with httpx.AsyncClient(base_url=b.api_url, trust_env=False, timeout=20) as http:
        query = {"flows": {"name": {"any_": ["release"]}}}
        runs = (await http.post("/flow_runs/filter", json=query)).raise_for_status().json()
    assert len(runs) == len(NAMES)
