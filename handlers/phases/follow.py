"""Following events in the queue until they settle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from handlers.core import Core
from handlers.database.transaction import transaction
from handlers.entities.apply import apply_events
from handlers.queue import look
from handlers.queue.event import SETTLED
from handlers.queue.look import EventState
from handlers.worker.worker import Worker, new_owner


async def until_settled(
    core: Core, ids: Sequence[UUID], *, limit_seconds: float, poll_seconds: float, revision: str
) -> list[EventState]:
    """Poll the events *ids* until all have settled or *limit_seconds* (real) have passed; returns their states.

    In an environment without its own workers, this process applies the events.
    """
    if core.environment.execution == "inline":
        worker = Worker(
            core.database, owner=new_owner(f"inline-{revision[:7]}"), revision=revision, apply=apply_events
        )
        await worker.run_until_settled(ids, limit_seconds)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_seconds
    while True:
        async with transaction(core.database) as tx:
            states = await look.states(tx, ids)
        if all(state.status in SETTLED for state in states) or loop.time() >= deadline:
            return states
        await asyncio.sleep(poll_seconds)
