"""What the board knows of an environment at one moment. Each source is read apart: one that is down hides no other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from time import monotonic
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Core
from handlers.database import clock
from handlers.database.privileges import Need, obstacles
from handlers.database.sqlstate import message_of
from handlers.database.transaction import transaction
from handlers.errors import RunbookError, TryAgain
from handlers.measurements import everything, window
from handlers.measurements.measurement import Measurement
from handlers.phases import neglected
from handlers.queue import limits, look, processing_times
from handlers.queue.event import Status
from handlers.queue.limits import Limit
from handlers.queue.look import TypeCount
from handlers.queue.processing_times import Histogram, Times
from handlers.release.due import Care
from handlers.release.ledger import guards, heals, releases, troubles
from handlers.release.ledger.guards import Check, Guard
from handlers.release.ledger.heals import Action, Out, State
from handlers.release.ledger.outcomes import outcomes
from handlers.release.ledger.troubles import Messages, Trouble
from handlers.release.phase import Phase, Release
from handlers.status import snapshot
from handlers.status.guard_step import uncarried
from handlers.status.view import StatusView
from handlers.worker import roster
from handlers.worker.roster import WorkerRow
from handlers.zoho import standing
from handlers.zoho.standing import Syncs

SOURCE_SECONDS = 4.0
"""How long one source may take."""
ALL_SECONDS = 12.0
"""How long all of them may take together. What is left then is down."""
HISTORY_MAX = 20
ACTIONS_MAX, DAY = 200, timedelta(days=1)
_QUEUE_IS_READABLE = Need(table="tds_sync_queue", privileges="SELECT")
T = TypeVar("T")


class Source(StrEnum):
    """What is read apart from the others."""

    QUEUE = "queue"
    CHECKS = "checks"
    TIMES = "times"
    WORKERS = "workers"
    RELEASE = "release"
    GUARD = "guard"
    SYNC = "sync"
    HEAL = "heal"
    MESSAGES = "messages"


class Away(TryAgain):
    """The environment's database or file could not be read, so nothing is known of it now."""


@dataclass(frozen=True, kw_only=True)
class QueueNow:
    """The queue by status and type."""

    status: Mapping[Status, int]
    by_type: list[TypeCount]
    limits: list[Limit]


@dataclass(frozen=True, kw_only=True)
class ReleaseNow:
    """The newest or live release, those before it, and what nobody carries on."""

    view: StatusView
    history: list[Release]
    outcomes: Mapping[Phase, int]
    neglected: Care | None
    """The release that nobody carries though it is due for minutes."""


@dataclass(frozen=True, kw_only=True)
class GuardNow:
    """The guard that began last; None where there was none."""

    guard: Guard | None = None
    checks: list[Check] = field(default_factory=list)
    overdue: str = ""
    """That nobody takes its checks; empty while somebody does."""


@dataclass(frozen=True, kw_only=True)
class HealNow:
    """What healing has done in the last day."""

    state: State = field(default_factory=State)
    out: Out | None = None
    """The batch that is out."""
    actions: list[Action] = field(default_factory=list)
    """The newest first."""


@dataclass(frozen=True, kw_only=True)
class MessagesNow:
    """What people were told of."""

    troubles: list[Trouble]
    messages: Messages


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Everything at one moment. What is None could not be read, and `down` says why."""

    environment: str
    at: datetime
    """The database's time."""
    seconds: float
    """How long the reading took."""
    down: Mapping[Source, str]
    queue: QueueNow | None
    checks: list[Measurement] | None
    times: Mapping[str, Times] | None
    """The processing times of each entity type since the board began to look."""
    workers: list[WorkerRow] | None
    release: ReleaseNow | None
    guard: GuardNow | None
    syncs: Syncs | None
    heal: HealNow | None
    messages: MessagesNow | None


async def read(core: Core, histogram: Histogram) -> Reading:
    """Read everything once, one query after the other, and add to the *histogram*. Raises Away."""
    began = monotonic()
    sources = _Sources(core, began + ALL_SECONDS)
    at = await sources.reachable()
    name = core.environment.name
    times = await sources.read(Source.TIMES, lambda tx: _times(tx, histogram), queue=True)
    return Reading(
        environment=name,
        at=at,
        times=times,
        queue=await sources.read(Source.QUEUE, _queue, queue=True),
        checks=await sources.within(Source.CHECKS, everything.of_queue(core), everything.DATABASE_SECONDS),
        workers=await sources.read(Source.WORKERS, roster.workers, queue=True),
        release=await sources.within(Source.RELEASE, _release(core), SOURCE_SECONDS),
        guard=await sources.read(Source.GUARD, lambda tx: _guard(tx, name, at)),
        syncs=await sources.read(Source.SYNC, lambda tx: standing.read(tx, name)),
        heal=await sources.read(Source.HEAL, lambda tx: _heal(tx, name, at)),
        messages=await sources.read(Source.MESSAGES, lambda tx: _messages(tx, name)),
        down=sources.down,
        seconds=monotonic() - began,
    )


async def _queue(tx: AsyncConnection) -> QueueNow:
    # One moment for both counts: the board's transactions are REPEATABLE READ.
    return QueueNow(
        status=await look.counts(tx), by_type=await look.counts_by_type(tx), limits=await limits.limits(tx)
    )


async def _times(tx: AsyncConnection, histogram: Histogram) -> Mapping[str, Times]:
    histogram.add(await processing_times.read_since(tx, histogram.until))
    return dict(histogram.times)


async def _release(core: Core) -> ReleaseNow:
    name = core.environment.name
    return ReleaseNow(
        view=await snapshot.read(core.database, name),
        history=await releases.history(core.database, name, limit=HISTORY_MAX),
        outcomes=await outcomes(core.database, name),
        neglected=await neglected.uncarried_release(core.database, name),
    )


async def _guard(tx: AsyncConnection, name: str, at: datetime) -> GuardNow:
    newest = await guards.newest(tx, name)
    guard = await guards.get(tx, newest) if newest is not None else None
    if guard is None:
        return GuardNow()
    checks = await guards.checks(tx, guard.release_id)
    return GuardNow(guard=guard, checks=checks, overdue=uncarried(guard, checks, at))


async def _heal(tx: AsyncConnection, name: str, at: datetime) -> HealNow:
    if not await heals.are_there(tx):
        return HealNow()
    actions = await heals.history(tx, name, limit=ACTIONS_MAX)
    return HealNow(
        state=await heals.state(tx, name),
        out=await heals.out(tx, name),
        actions=[each for each in actions if each.begun_at > at - DAY],
    )


async def _messages(tx: AsyncConnection, name: str) -> MessagesNow:
    return MessagesNow(
        troubles=await troubles.open_troubles(tx, name), messages=await troubles.messages(tx, name)
    )


class _Sources:
    """Reads the sources one after the other, and remembers why one could not be read."""

    def __init__(self, core: Core, deadline: float) -> None:
        self.down: dict[Source, str] = {}
        self._core = core
        self._deadline = deadline
        self._hidden = ""
        """Why the queue would only look empty."""

    async def reachable(self) -> datetime:
        """The database's time. Raises Away."""
        try:
            async with asyncio.timeout(SOURCE_SECONDS), transaction(self._core.database) as tx:
                at = await clock.now(tx)
                # Row security does not refuse: the queue would look empty, and so well.
                self._hidden = "; ".join((await obstacles(tx, [_QUEUE_IS_READABLE])).denied)
                return at
        except (RunbookError, DBAPIError, TimeoutError) as error:
            raise Away(why(error, SOURCE_SECONDS)) from error

    async def read(
        self, source: Source, read: Callable[[AsyncConnection], Awaitable[T]], *, queue: bool = False
    ) -> T | None:
        """What *read* finds in a transaction of its own; None where it cannot be read."""
        if queue and self._hidden:
            self.down[source] = self._hidden
            return None

        async def bounded() -> T:
            async with transaction(self._core.database) as tx:
                # The server ends a query a little before we give it up.
                await window.limit_time(tx, max(0.1, self._left(SOURCE_SECONDS) - 0.5))
                return await read(tx)

        return await self.within(source, bounded(), SOURCE_SECONDS)

    async def within(self, source: Source, work: Awaitable[T], seconds: float) -> T | None:
        """What *work* finds within its time; None where it cannot be read."""
        seconds = self._left(seconds)
        try:
            async with asyncio.timeout(seconds):
                return await work
        except (RunbookError, DBAPIError, TimeoutError) as error:
            self.down[source] = why(error, seconds)
            return None

    def _left(self, seconds: float) -> float:
        return max(0.2, min(seconds, self._deadline - monotonic()))


def why(error: Exception, seconds: float) -> str:
    """Why something could not be read, in one line."""
    if isinstance(error, TimeoutError):
        return f"it was not read within {seconds:.2g} s"
    text = message_of(error) if isinstance(error, DBAPIError) else str(error)
    return " ".join(text.split())[:300]
