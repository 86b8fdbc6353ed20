"""Faults of the connection: which errors a worker survives, and when an event is to blame all the same."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.sqlstate import NEVER_OF_AN_EVENT, is_away, is_connection_fault, sqlstate
from handlers.errors import ConnectionFault, DatabaseDown
from handlers.queue.diagnose import diagnose
from handlers.queue.event import ErrorClass, Event

_TIMES = 3
"""So often in a row, each time on a new connection."""


def is_survivable(error: Exception) -> bool:
    """Whether a worker goes on after *error*, with a new connection and its events released."""
    return is_away(error) or diagnose(error).error_class in (ErrorClass.TRANSIENT, ErrorClass.CONNECTION)


def raise_if_transaction_lost(tx: AsyncConnection, error: Exception) -> None:
    """Raise when *error* means that the transaction cannot go on: DatabaseDown or ConnectionFault."""
    if tx.invalidated:
        raise DatabaseDown("the database connection was lost while a batch was applied") from error
    raise_if_no_fault_of_an_event(error)


def raise_if_no_fault_of_an_event(error: Exception) -> None:
    """Raise DatabaseDown or ConnectionFault when *error* says nothing about the events of the batch."""
    if is_away(error):
        raise DatabaseDown("the database connection was lost while a batch was settled") from error
    if is_connection_fault(error):
        raise ConnectionFault("the database connection broke down while a batch was settled") from error


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
