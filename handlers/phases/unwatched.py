"""What the gate is told of a time in which nobody looked: before a new controller, or between two checks of a guard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from handlers.gate.traffic import UNWATCHED
from handlers.phases.facts import Fact, Timeline
from handlers.queue.changes import Change


def facts_of(
    found: Iterable[Change], timeline: Timeline, last: datetime, now: datetime, server_started: datetime
) -> list[Fact]:
    """That nobody looked between *last* and *now*, and the outage of the database that lay in it, if one did. Pure.

    A server that was started meanwhile was away before. Since when is not known: since the last sign of a worker.
    """
    at = timeline.at
    facts: list[Fact] = [{"ev": UNWATCHED, "t": at(now)}]
    if last < server_started <= now:
        signs = [sign for change in found for sign in _signs(change) if last < sign < server_started]
        away = at(max(signs, default=last))
        facts += [{"ev": "upstream", "t": away, "up": False}]
        facts += [{"ev": "upstream", "t": max(at(server_started), away), "up": True}]
    return facts


def _signs(change: Change) -> Iterator[datetime]:
    """When a worker wrote something of the event."""
    times = (change.admitted, change.ended, change.waits_since, *(each.at for each in change.attempts))
    yield from (time for time in times if time is not None)
