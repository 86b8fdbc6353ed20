"""The one clock: the database's. Every stored time comes from it, so times of two machines are never compared.

A duration within one process is measured by the monotonic clock as well: nobody can set that one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Elapsed:
    """The time between two moments of one process. Seconds."""

    seconds: float
    """The shorter of the two measurements, and never negative: a clock that is set does not shorten a wait."""
    set_ahead_seconds: float
    """How far the database's clock went ahead of the monotonic one; much more than 0 when it was set forward."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One moment by two clocks. The monotonic one is comparable within one process only."""

    monotonic: float
    database: datetime

    def since(self, before: Moment) -> Elapsed:
        """The time from *before* to this moment."""
        by_database = (self.database - before.database).total_seconds()
        by_process = self.monotonic - before.monotonic
        return Elapsed(
            seconds=max(0.0, min(by_database, by_process)), set_ahead_seconds=by_database - by_process
        )


async def now(bind: Bind) -> datetime:
    """The database's current time, timezone-aware. Raises DatabaseDown."""
    async with transaction(bind) as tx:
        at: datetime = (await tx.execute(_SQL["now"])).scalar_one()
        return at


async def server_started(bind: Bind) -> datetime:
    """Since when the database server runs: before that it was away. Raises DatabaseDown."""
    async with transaction(bind) as tx:
        at: datetime = (await tx.execute(_SQL["server_started"])).scalar_one()
        return at


async def moment(bind: Bind) -> Moment:
    """This moment by both clocks. Raises DatabaseDown."""
    at = await now(bind)
    return Moment(monotonic=monotonic(), database=at)
