"""One worker as a process: it runs until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import signal

from handlers.database.engine import Place, raise_if_impossible, worker_engine
from handlers.entities.apply import apply_events
from handlers.process import tune_garbage_collector
from handlers.queue.settle import BACKOFF_CAP_SECONDS, BACKOFF_SECONDS, WAIT_SECONDS_MAX
from handlers.worker.batch import Apply
from handlers.worker.needs import QUEUE_NEEDS, needs
from handlers.worker.worker import Worker, new_owner


async def serve(
    database: Place,
    *,
    revision: str,
    apply: Apply = apply_events,
    owner: str | None = None,
    batch_size: int = 1000,
    lease_seconds: float = 300,
    poll_seconds: float = 1.0,
    backoff_seconds: float = BACKOFF_SECONDS,
    backoff_cap_seconds: float = BACKOFF_CAP_SECONDS,
    wait_seconds: float = WAIT_SECONDS_MAX,
) -> None:
    """Run one worker until SIGTERM or SIGINT, then stop within ten seconds. *owner* is a readable name.

    The first retry of an event comes after *backoff_seconds*, each further one after twice as long, at most
    *backoff_cap_seconds*. It waits *wait_seconds* for a parent of which no event is open.

    Raises Refused at the start when the database can never be reached, or when its user may not do what is needed. A
    database that is only away is waited for.
    """
    tune_garbage_collector()
    engine = worker_engine(database, lease_seconds=lease_seconds)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker = Worker(
        engine,
        owner=new_owner(owner),
        revision=revision,
        apply=apply,
        batch_size=batch_size,
        lease_seconds=lease_seconds,
        poll_seconds=poll_seconds,
        backoff_seconds=backoff_seconds,
        backoff_cap_seconds=backoff_cap_seconds,
        wait_seconds=wait_seconds,
        # Another handler writes to other tables.
        needs=needs() if apply is apply_events else QUEUE_NEEDS,
    )
    try:
        await raise_if_impossible(engine)
        await worker.run(stop)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await engine.dispose()
