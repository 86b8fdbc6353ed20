"""Following events in the queue until they settle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from uuid import UUID

from handlers.core import Core
from handlers.database import clock
from handlers.database.transaction import transaction
from handlers.entities.apply import apply_events
from handlers.queue import limits, look
from handlers.queue.event import SETTLED, Status
from handlers.queue.look import EventState
from handlers.worker.worker import Worker, new_owner

log = logging.getLogger(__name__)


async def until_settled(
    core: Core, ids: Sequence[UUID], *, limit_seconds: float, poll_seconds: float, revision: str
) -> list[EventState]:
    """Poll the events *ids* until all have settled or *limit_seconds* (real) have passed; returns their states.

    While a limit of the queue holds one of them, the time stands still: it ends by itself, and is nobody's failure.
    In an environment without its own workers, this process applies the events.
    """
    if core.environment.execution == "inline":
        await _apply(core, ids, limit_seconds, revision)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_seconds
    looked_at, told = loop.time(), ""
    while True:
        async with transaction(core.database) as tx:
            states = await look.states(tx, ids)
            waiting = {state.raw_type for state in _waiting(states)}
            holder = (await limits.holds(tx)).holder(waiting) if waiting else ""
        if holder:
            if holder != told:
                log.info("the queue is held by %s: waiting", holder)
            deadline += loop.time() - looked_at
        told = holder
        looked_at = loop.time()
        if all(state.status in SETTLED for state in states) or looked_at >= deadline:
            return states
        await asyncio.sleep(poll_seconds)


async def _apply(core: Core, ids: Sequence[UUID], limit_seconds: float, revision: str) -> None:
    """Apply the events in this process, and again after a limit of the queue has held one of them meanwhile."""
    worker = Worker(
        core.database, owner=new_owner(f"inline-{revision[:7]}"), revision=revision, apply=apply_events
    )
    while True:
        began = await clock.now(core.database)
        states = await worker.run_until_settled(ids, limit_seconds)
        waiting = {state.raw_type for state in _waiting(states)}
        held_until = (await limits.holds(core.database)).until_of(waiting) if waiting else None
        if held_until is None or held_until < began:
            return


def _waiting(states: Sequence[EventState]) -> list[EventState]:
    return [state for state in states if state.status in (Status.PENDING, Status.RETRY)]
