"""A process with a temporary Prefect server that tries the steps' retry policies and prints the results."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from flows.local.server import prefect_settings, temporary_server


async def main(folder: Path) -> None:
    """Run every trial in one process, because a server takes seconds to start."""
    server = temporary_server(folder)
    api_url = await server.__aenter__()
    os.environ.update(prefect_settings(folder, api_url))
    results = await trials()
    results["after the server"] = await without_server(server)
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

    @step(soon)
    async def third_time(name: str) -> str:
        calls[name] += 1
        if calls[name] % 3:
            raise TryAgain("not yet")
        return f"{name} after {calls[name]}"

    @step(soon)
    async def never(name: str, error: str) -> None:
        calls[name] += 1
        kinds = {"refused": Refused, "again": TryAgain, "own": ValueError, "away": DatabaseDown}
        raise kinds[error](f"no: {name}")

    @step(RetryPolicy(pauses=(), limit_seconds=20, outage_pauses=(0.05,) * 6))
    async def back_in_time(name: str) -> int:
        calls[name] += 1
        if calls[name] < 6:
            raise DatabaseDown("away")
        return calls[name]

    @step(soon)
    async def plain(name: str) -> int:
        calls[name] += 1
        return calls[name]

    @step(RetryPolicy(pauses=(0.05,), limit_seconds=0.3))
    async def slow(name: str) -> None:
        calls[name] += 1
        await asyncio.sleep(20)

    @step(RetryPolicy(pauses=(), limit_seconds=None))
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


async def without_server(server: Any) -> dict[str, Any]:
    """What a flow does when its server stops in the middle."""
    from prefect import flow

    from handlers.errors import Refused
    from tasks.policy import RetryPolicy, step

    calls: Counter[str] = Counter()

    @step(RetryPolicy(pauses=(), limit_seconds=60))
    async def counted(name: str) -> str:
        calls[name] += 1
        if name == "refused":
            raise Refused("no")
        return name

    results: dict[str, Any] = {}

    @flow(name="orphan")
    async def orphan() -> None:
        results["before"] = await counted("before")
        await server.__aexit__(None, None, None)
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
    return results


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
