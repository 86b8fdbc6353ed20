"""Following events in the queue until they settle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from uuid import UUID

from handlers.core import Core
from handlers.database import clock
from handlers.database.transaction import transaction
from handlers.entities.apply import apply_events
from handlers.queue import limits, look
from handlers.queue.event import SETTLED, Status
from handlers.queue.look import EventState
from handlers.queue.room import GATE
from handlers.worker.worker import Worker, new_owner

log = logging.getLogger(__name__)

GATE_SECONDS = 30.0
"""A gate that holds the intake lets some events through in ten seconds. Workers that take none in three such times do
not work. Where it lets none through, it judges the live events that have no answer itself."""


async def until_settled(
    core: Core, ids: Sequence[UUID], *, limit_seconds: float, poll_seconds: float, revision: str
) -> list[EventState]:
    """Poll the events *ids* until all have settled or *limit_seconds* (real) have passed; returns their states.

    While a limit of the queue holds one of them, the time stands still: it ends by itself, and is nobody's failure.
    With that of a gate, only as long as workers take what it lets through. In an environment without its own workers,
    this process applies the events.
    """
    if core.environment.execution == "inline":
        await _apply(core, ids, limit_seconds, revision)
    patience = _Patience(limit_seconds, len(ids))
    while True:
        async with transaction(core.database) as tx:
            states = await look.states(tx, ids)
            waiting = [state.raw_type for state in _waiting(states)]
            holder = (await limits.holds(tx)).holder(waiting) if waiting else ""
        ends = patience.ends(len(waiting), holder)
        if ends or all(state.status in SETTLED for state in states):
            return states
        await asyncio.sleep(poll_seconds)


class _Patience:
    """Measures the limit of a following, in which time stands still while events are held."""

    def __init__(self, limit_seconds: float, waiting: int) -> None:
        self._left = limit_seconds
        self._waiting = waiting
        self._looked_at = self._moved_at = monotonic()
        self._holder = ""

    def ends(self, waiting: int, holder: str) -> bool:
        """Whether the limit has passed at this look. *waiting* events have no worker, and *holder* holds some."""
        now = monotonic()
        if waiting < self._waiting:
            self._moved_at, self._waiting = now, waiting
        if holder.startswith(GATE) and now - self._moved_at > GATE_SECONDS:
            holder = ""
        if holder and holder != self._holder:
            log.info("the queue is held by %s: waiting", holder)
        if not holder:
            self._left -= now - self._looked_at
        self._holder, self._looked_at = holder, now
        return self._left <= 0


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
