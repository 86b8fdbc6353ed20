"""Faults of the connection: which errors a worker survives, and when an event is to blame all the same."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from handlers.database.sqlstate import NEVER_OF_AN_EVENT, is_away, sqlstate
from handlers.queue.diagnose import diagnose
from handlers.queue.event import ErrorClass, Event

_TIMES = 3
"""So often in a row, each time on a new connection."""


def is_survivable(error: Exception) -> bool:
    """Whether a worker goes on after *error*, with a new connection and its events released."""
    return is_away(error) or diagnose(error).error_class in (ErrorClass.TRANSIENT, ErrorClass.CONNECTION)


class Suspects:
    """Finds the event whose handler breaks the connection: it would be the first of every next batch.

    A fault of the connection counts as no attempt, and the next batch is smaller. Only an event that is alone, and
    breaks one connection after the other, is to blame itself.
    """

    def __init__(self) -> None:
        self._id: UUID | None = None
        self._times = 0

    def is_to_blame(self, events: Sequence[Event], error: Exception) -> bool:
        """Count *error* for the batch *events*; whether the only event in it has caused it."""
        state = sqlstate(error)
        if len(events) > 1 or (state is not None and state.startswith(NEVER_OF_AN_EVENT)):
            return False
        if events[0].id != self._id:
            self._id, self._times = events[0].id, 0
        self._times += 1
        return self._times >= _TIMES
