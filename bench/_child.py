"""One client of a benchmark, as a process of its own: gets ready, waits for the word, works and counts aloud."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

Task = dict[str, Any]
Count = Callable[[int], None]
Begin = Callable[[], Awaitable[None]]


def count(done: int) -> None:
    """Say how many jobs this client has finished so far."""
    sys.stdout.write(f"{done}\n")
    sys.stdout.flush()


async def begin() -> None:
    """Say that all is ready, and wait for the word."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)


async def worker(task: Task) -> None:
    """The worker of this project, made as `serve` makes it."""
    from _sql import NARROW_HANDLERS

    from handlers.database.engine import worker_engine
    from handlers.entities.apply import apply_events
    from handlers.process import tune_garbage_collector
    from handlers.worker.worker import Worker, new_owner

    apply = partial(apply_events, handlers=NARROW_HANDLERS) if task.get("narrow") else apply_events
    tune_garbage_collector()
    engine = worker_engine(task["url"])
    batch = {"batch_size": task["batch"]} if "batch" in task else {}
    one = Worker(engine, owner=new_owner("bench"), revision="bench", apply=apply, **batch)
    stop = asyncio.Event()
    async with engine.connect():
        pass
    await begin()
    running = asyncio.create_task(one.run(stop))
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    told = 0
    while not ended.done() and not running.done():
        if (now := one.tally.total()) != told:
            told = now
            count(told)
        await asyncio.sleep(0.01)
    stop.set()
    await running
    await engine.dispose()


async def floor(task: Task) -> None:
    """The single statement, again and again."""
    import asyncpg
    from _sql import NARROW, drain

    from handlers.entities.kinds.items import PRODUCT

    connection = await asyncpg.connect(task["url"])
    await connection.execute("SET plan_cache_mode = force_custom_plan")
    statement = drain(NARROW, whole=False) if task.get("narrow") else drain(PRODUCT, whole=True)
    await begin()
    done = 0
    while done < task["jobs"]:
        found = int((await connection.execute(statement, task.get("batch", 1000))).split()[-1])
        if not found:
            break
        done += found
        count(done)
    await asyncio.to_thread(sys.stdin.readline)
    await connection.close()


async def main() -> None:
    task = json.loads(sys.argv[1])
    logging.disable(logging.CRITICAL)
    if task["what"] in ("worker", "floor"):
        await {"worker": worker, "floor": floor}[task["what"]](task)
    else:
        import _peers

        await getattr(_peers, task["what"])(task, begin, count)


if __name__ == "__main__":
    asyncio.run(main())
