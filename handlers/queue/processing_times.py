"""How long events took from claim to completion, added up while a process looks: a histogram that only grows.

The queue keeps no sums, so each look adds what has completed since the one before. It counts from the first look on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database import clock
from handlers.database.queries import queries
from handlers.queue.event import ENTITY_TYPES, SYNTHETIC_KEY

_SQL = queries(__name__)

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The upper ends of the buckets in seconds. The last bucket has none."""
LATE = timedelta(seconds=15)
"""An event is counted so long after its completion: the transaction that completed it has committed by then."""
SPAN_MAX = timedelta(minutes=15)
"""After a longer time without a look, only what completed in this time is added: a look costs the same."""
ROWS_MAX = 20_000


@dataclass(frozen=True, kw_only=True)
class Times:
    """The processing times of one entity type."""

    buckets: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    """The events of each bucket alone, not of those before it."""
    seconds: float = 0.0
    """The sum of the times."""

    @property
    def events(self) -> int:
        """All events."""
        return sum(self.buckets)


@dataclass(frozen=True, kw_only=True)
class Added:
    """What one look found, and until when it looked."""

    until: datetime
    times: Mapping[str, Times] = field(default_factory=dict)


@dataclass(kw_only=True)
class Histogram:
    """The processing times of each entity type since the first look. It never goes down."""

    until: datetime | None = None
    times: dict[str, Times] = field(default_factory=dict)

    def add(self, added: Added) -> None:
        """Add what a look has found. A look that was overtaken by another one adds nothing."""
        if self.until is not None and added.until <= self.until:
            return
        self.until = added.until
        for entity, new in added.times.items():
            old = self.times.get(entity, Times())
            self.times[entity] = Times(
                buckets=tuple(a + b for a, b in zip(old.buckets, new.buckets, strict=True)),
                seconds=old.seconds + new.seconds,
            )


async def read_since(tx: AsyncConnection, since: datetime | None) -> Added:
    """What completed from *since* on until a moment ago. Without *since* nothing: it is the first look."""
    until = await clock.now(tx) - LATE
    if since is None or since >= until:
        return Added(until=until if since is None else since)
    values = {
        "since": max(since, until - SPAN_MAX),
        "until": until,
        "bounds": list(BOUNDS),
        "synthetic": SYNTHETIC_KEY,
        "rows_max": ROWS_MAX,
    }
    rows = (await tx.execute(_SQL["tally"], values)).all()
    types = {row.raw_type for row in rows}
    return Added(
        until=until,
        times={
            str(ENTITY_TYPES.get(raw, raw)): _times(
                [(row.bucket, row.events, row.seconds) for row in rows if row.raw_type == raw]
            )
            for raw in types
        },
    )


def _times(counted: Sequence[tuple[int, int, float]]) -> Times:
    buckets = [0] * (len(BOUNDS) + 1)
    for bucket, events, _ in counted:
        buckets[bucket] += events
    return Times(buckets=tuple(buckets), seconds=sum(seconds for _, _, seconds in counted))
