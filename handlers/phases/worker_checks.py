"""The check of the live workers before a release: one of another revision would take its events."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime
from typing import NamedTuple

from handlers.core import Core
from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.release.phase import runs, short
from handlers.release.planned import Check
from handlers.worker.roster import LIVE_SECONDS

LOOK_SECONDS = 0.5
"""So often a worker whose lock is free is looked for again."""
WORKERS_SHOWN = 3
COMMIT = re.compile(r"[0-9a-f]{7,40}")
_SQL = queries(__name__)


class LiveWorker(NamedTuple):
    """A worker with a fresh heartbeat."""

    owner: str
    host: str
    """The name that its machine gives itself."""
    revision: str
    beat_at: datetime
    locked: bool
    """It holds the lock of its name. A free lock: killed, just connecting again, or of a version without locks."""


async def run(core: Core, current: str) -> list[Check]:
    """Live `runbook worker` processes: none may run another revision than *current*. Empty when none is live.

    A worker that could not say goodbye, as one that ended while the database was away, has a fresh heartbeat for
    seconds. So what holds no lock must beat once more before it refuses a release: at most `LIVE_SECONDS`.
    """
    workers = await _live(core)
    first = {worker.owner: worker.beat_at for worker in workers}
    deadline = time.monotonic() + LIVE_SECONDS
    others = _others(workers, current)
    while any(not worker.locked and worker.beat_at == first.get(worker.owner) for worker in others):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(LOOK_SECONDS)
        workers = await _live(core)
        others = _others(workers, current)
    if not workers:
        return []
    if not others:
        return [Check(name="workers", good=True, sentence=f"{len(workers)} live, by their heartbeats")]
    names = [f"{worker.owner} on {worker.host} ({short(worker.revision)})" for worker in others]
    sentence = f"live workers of another revision than {short(current)}: {', '.join(names[:WORKERS_SHOWN])}"
    more = f" and {len(names) - WORKERS_SHOWN} more" if len(names) > WORKERS_SHOWN else ""
    cure = "restart or stop them, or they take events from the release and its canary"
    return [Check(name="workers", good=False, sentence=f"{sentence}{more}: {cure}")]


async def _live(core: Core) -> list[LiveWorker]:
    async with transaction(core.database) as tx:
        return [LiveWorker(*row) for row in await tx.execute(_SQL["live"])]


def _others(workers: list[LiveWorker], current: str) -> list[LiveWorker]:
    """The workers of another revision; one that names none cannot be told apart."""
    return [
        worker
        for worker in workers
        if current and COMMIT.fullmatch(worker.revision) and not runs(worker.revision, current)
    ]
