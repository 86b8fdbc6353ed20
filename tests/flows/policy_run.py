"""A process with a temporary Prefect server that tries the steps' retry policies and prints the results."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.local.server import prefect_settings, temporary_server


async def main(folder: Path) -> None:
    """Run every trial in one process, because a server takes seconds to start."""
    server = temporary_server(folder)
    api_url = await server.__aenter__()
    os.environ.update(prefect_settings(folder, api_url))
    results = await trials()
    results["phases"] = await phases()
    results["after the server"], results["page without a server"] = await without_server(server)
    print(json.dumps(results), flush=True)
    # Prefect would wait for its dead server at exit.
    os._exit(0)


async def trials() -> dict[str, Any]:
    """What the steps do within a flow, and outside one."""
    from prefect import flow, get_client

    from handlers.errors import DatabaseDown, Refused, TryAgain
    from tasks.policy import RetryPolicy, step

    calls: Counter[str] = Counter()
    soon = RetryPolicy(pauses=(0.05, 0.05, 0.05), limit_seconds=20, outage_pauses=(0.05,) * 6)

    @step(soon, "Third time")
    async def third_time(name: str) -> str:
        calls[name] += 1
        if calls[name] % 3:
            raise TryAgain("not yet")
        return f"{name} after {calls[name]}"

    @step(soon, "Never")
    async def never(name: str, error: str) -> None:
        calls[name] += 1
        kinds = {"refused": Refused, "again": TryAgain, "own": ValueError, "away": DatabaseDown}
        raise kinds[error](f"no: {name}")

    @step(RetryPolicy(pauses=(), limit_seconds=20, outage_pauses=(0.05,) * 6), "Back in time")
    async def back_in_time(name: str) -> int:
        calls[name] += 1
        if calls[name] < 6:
            raise DatabaseDown("away")
        return calls[name]

    @step(soon, "Plain")
    async def plain(name: str) -> int:
        calls[name] += 1
        return calls[name]

    @step(RetryPolicy(pauses=(0.05,), limit_seconds=0.3), "Slow")
    async def slow(name: str) -> None:
        calls[name] += 1
        await asyncio.sleep(20)

    @step(RetryPolicy(pauses=(), limit_seconds=None), "Without end")
    async def without_end() -> str:
        await asyncio.sleep(0.5)
        return "went on"

    async def ended(name: str, error: str) -> str:
        try:
            await never(name, error)
        except Exception as raised:
            return f"{type(raised).__name__} after {calls[name]}"
        return "nothing was raised"

    async def too_slow(name: str) -> str:
        try:
            await slow(name)
        except TimeoutError:
            return f"TimeoutError after {calls[name]}"
        return "nothing was raised"

    async def all_of(where: str) -> dict[str, Any]:
        return {
            "third time": await third_time(f"{where} third"),
            "refused": await ended(f"{where} refused", "refused"),
            "again": await ended(f"{where} again", "again"),
            "own": await ended(f"{where} own", "own"),
            "away": await ended(f"{where} away", "away"),
            "back in time": await back_in_time(f"{where} back"),
            "same twice": [await plain(f"{where} plain"), await plain(f"{where} plain")],
            "slow": await too_slow(f"{where} slow"),
            "without end": await without_end(),
        }

    @flow(name="terminated")
    async def terminated() -> dict[str, Any]:
        from flows.asked import sigterm

        theirs = signal.getsignal(signal.SIGTERM)
        with sigterm() as came:
            # In the middle of other work, as a worker that ends a cancelled run does.
            work = asyncio.create_task(busy())
            await asyncio.wait_for(came, 10)
            went_on = await work
        return {"work": went_on, "handler": signal.getsignal(signal.SIGTERM) is theirs}

    async def busy() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "went on"

    @flow(name="trials")
    async def trial() -> dict[str, Any]:
        return await all_of("inside")

    outside = await all_of("outside")
    async with get_client() as client:
        before = len(await client.read_task_runs()) + len(await client.read_flow_runs())
    return {
        "outside": outside,
        "runs of outside": before,
        "inside": await trial(),
        "terminated": await terminated(),
    }


async def phases() -> dict[str, Any]:
    """What the page shows of phases that pass, fail, raise and are stopped, and what their caller gets."""
    from prefect import flow, get_client

    from flows.phase_run import in_its_run
    from handlers.release.phase import Phase
    from tasks import page

    draining = release_in(Phase.DRAINING)
    got: dict[str, Any] = {}
    begun = asyncio.Event()

    async def never() -> Any:
        begun.set()
        await asyncio.sleep(600)

    async def broken() -> Any:
        raise ZeroDivisionError("of the phase")

    @flow(name="release")
    async def release() -> None:
        async with page.opened(draining, "release"):
            after = release_in(Phase.WATCHING, "58 of 58 completed")
            got["passed"] = (await in_its_run(draining, returning(after))) is after
            await in_its_run(draining, returning(release_in(Phase.ROLLING_BACK, "9 of 16 failed")))
            await in_its_run(draining, returning(release_in(Phase.HELD, "held by ops-a")))
            try:
                await in_its_run(draining, broken)
            except ZeroDivisionError as error:
                got["raised"] = str(error)
            stopped = asyncio.create_task(in_its_run(draining, never))
            await begun.wait()
            stopped.cancel()
            await asyncio.wait({stopped})
            got["stopped"] = stopped.cancelled()

    await release()
    async with get_client() as client:
        runs = {run.id: run for run in await client.read_flow_runs()}
        below = [run for run in runs.values() if run.parent_task_run_id and run.name == "drain"]
        states = [run.state for run in sorted(below, key=lambda run: run.created or 0)]
        got["states"] = [(state.type.value, state.name, state.message) for state in states if state]
        [root] = [run for run in runs.values() if run.name.startswith("release 2025")]
        got["root"] = (root.name, sorted(root.tags), root.state.name if root.state else "")
        parents = [
            await client.read_task_run(run.parent_task_run_id) for run in below if run.parent_task_run_id
        ]
        got["below the root"] = {parent.flow_run_id for parent in parents} == {root.id}
    return got


def returning(value: Any) -> Any:
    """A phase whose work returns the value."""

    async def work() -> Any:
        return value

    return work


def release_in(phase: Any, reason: str = "") -> Any:
    """A release in a phase."""
    from handlers.release.phase import Release

    return Release(
        id="2025-11-14.3",
        environment="small",
        from_revision="a" * 40,
        to_revision="b" * 40,
        requested_by="ops-a",
        phase=phase,
        resume_phase=None,
        token=1,
        speed=1.0,
        reason=reason,
        finished_at=None,
        created_at=datetime(2025, 11, 14, tzinfo=UTC),
    )


async def without_server(server: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a flow does when its server stops in the middle."""
    from prefect import flow

    from flows.phase_run import in_its_run
    from handlers.errors import Refused
    from handlers.release.phase import Phase
    from tasks import page
    from tasks.policy import RetryPolicy, step

    calls: Counter[str] = Counter()

    @step(RetryPolicy(pauses=(), limit_seconds=60), "Counted")
    async def counted(name: str) -> str:
        calls[name] += 1
        if name == "refused":
            raise Refused("no")
        return name

    page_trial: dict[str, Any] = {}
    results: dict[str, Any] = {}

    @flow(name="orphan")
    async def orphan() -> None:
        results["before"] = await counted("before")
        draining, watching = release_in(Phase.DRAINING), release_in(Phase.WATCHING)
        async with page.opened(draining, "release"):
            await server.__aexit__(None, None, None)
            began = time.monotonic()
            phase = (await in_its_run(draining, returning(watching))) is watching
            took, ended = time.monotonic() - began, time.monotonic()
        page_trial.update({"phase": phase, "took": took, "closed in": time.monotonic() - ended})
        results["done"] = await counted("done")
        try:
            await counted("refused")
        except Refused as error:
            results["refused"] = str(error)
        results["calls"] = dict(calls)

    running = asyncio.create_task(orphan())
    async with asyncio.timeout(60):
        while "calls" not in results:
            await asyncio.wait({running}, timeout=0.1)
    return results, page_trial


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
