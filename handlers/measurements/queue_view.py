"""The queue at one moment for a person: counts, broken bars, dead letters by error, and what failed last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Clock
from handlers.database import clock
from handlers.environment.model import Environment
from handlers.measurements import alive, window
from handlers.measurements.measurement import Measurement, ordered
from handlers.measurements.window import Window
from handlers.queue import limits, listing, look
from handlers.queue.event import Status
from handlers.queue.limits import Limit
from handlers.queue.listing import ErrorGroup, ListedEvent

RECENT_MAX = 10
RECENT = timedelta(days=1)
"""Without a time of its own, a look names the errors of the last day."""


@dataclass(frozen=True, kw_only=True)
class QueueView:
    """The queue at one moment."""

    environment: str
    """Its name."""
    at: datetime
    """The database's time."""
    since: datetime | None
    """Only what came or was taken since then is counted; None: everything."""
    status: dict[Status, int]
    """How many events are in each status."""
    percent: dict[Status, float | None]
    """The share of each status; None while there is no event."""
    dead_letters: list[ErrorGroup]
    """Failed events and dead letters with equal errors, the most frequent first."""
    failed_is_cut: bool
    """Whether only the newest failed events were grouped."""
    recent_errors: list[ListedEvent]
    """The newest ones."""
    limits: list[Limit]
    """Those in force."""
    measurements: list[Measurement]
    """The checks of queue and workers; empty without a ledger."""


async def read(
    tx: AsyncConnection, environment: Environment, since: datetime | None, *, has_ledger: bool
) -> QueueView:
    """Read the queue. The caller bounds the time."""
    at = await clock.now(tx)
    counts = await look.counts(tx) if since is None else await listing.counts_since(tx, since)
    failed = await listing.failed(tx, since)
    measured: list[Measurement] = []
    if has_ledger:
        span = Window.of(Clock(), at, since)
        measured = [
            *await window.read(tx, environment.bars, span, None),
            *await alive.read(tx, environment),
        ]
    return QueueView(
        environment=environment.name,
        at=at,
        since=since,
        status=counts,
        percent=shares(counts),
        dead_letters=listing.grouped(failed),
        failed_is_cut=len(failed) >= listing.FAILED_MAX,
        recent_errors=_recent(failed, since or at - RECENT),
        limits=await limits.limits(tx),
        measurements=ordered(environment, measured),
    )


def shares(counts: Mapping[Status, int]) -> dict[Status, float | None]:
    """The share of each status in percent; None while there is no event."""
    total = sum(counts.values())
    return {status: 100 * count / total if total else None for status, count in counts.items()}


def _recent(failed: Iterable[ListedEvent], since: datetime) -> list[ListedEvent]:
    # Waiting for a parent is no error.
    found = [event for event in failed if event.at >= since and event.error_code != "missing_parent"]
    return found[:RECENT_MAX]
