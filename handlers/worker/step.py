"""One batch after the other: how it is claimed, and how large the next one is."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.sqlstate import is_connection_fault, root_of
from handlers.database.transaction import transaction
from handlers.errors import ConnectionFault
from handlers.queue import in_hand
from handlers.queue.claim import TooManyLocked, claim, claim_lost, is_full
from handlers.queue.event import EntityType, Event
from handlers.queue.room import InForce, in_force
from handlers.worker.batch import Settler
from handlers.worker.connection_faults import Suspects
from handlers.worker.isolate import Tally, describe

log = logging.getLogger(__name__)

_OTHERS_SECONDS = 600.0
"""So long after workers of another kind were seen every batch is leased: one of them may be about to take an event."""
_FAULT_SECONDS = 60.0
"""So long after a fault every batch is leased: whose fault it was is found with leases only."""
_LIMITED_SECONDS = 1.0
"""So often a worker that is busy with other types looks whether a limited one has room."""


@dataclass(kw_only=True)
class Stepper:
    """Claims and settles the batches of one worker.

    While nothing is wrong a batch is claimed by row locks. It is leased where that could harm: beside workers that may
    change an event which they read before, after a fault, within a limit, and for what killed a worker before. Types
    without a limit are not slowed down by the limit of another.
    """

    settler: Settler
    batch_size: int
    kinds: Collection[EntityType] | None
    tally: Tally = field(default_factory=Counter)
    """The outcomes of all events so far."""
    unfinished: int = 0
    """Steps that began and did not succeed: their events may still be ours."""
    lost_first: bool = False
    """Whether events that lost their lease are due before others: after maintenance, until none are left."""
    _claim_size: int = field(init=False)
    """Events in one claim: fewer after a batch that took longer than its lease, or broke its connection."""
    _lock_size: int = field(init=False)
    """Events in one claim by row locks: as many as fit into the bytes of a batch. It grows with every batch."""
    _suspects: Suspects = field(default_factory=Suspects, init=False)
    _leased_until: float = field(default=0.0, init=False)
    _limited: InForce = field(default_factory=InForce, init=False)
    """The limits in force, when the last lease looked."""
    _limited_due: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._claim_size = self._lock_size = self.batch_size

    @property
    def can_shrink(self) -> bool:
        """Whether the next batch can be smaller than this one."""
        return self._claim_size > 1

    @property
    def limit_window_seconds(self) -> float | None:
        """The time after which a limit lets more events through; None without a limit."""
        return self._limited.window_seconds

    async def look_around(self, tx: AsyncConnection) -> None:
        """See whether workers of another kind are at work on this queue."""
        if await in_hand.others_are_seen(tx):
            self._lease_for(_OTHERS_SECONDS)

    async def step(self, ids: Sequence[UUID] | None = None) -> tuple[int, bool]:
        """Settle one batch: the number of its events, and whether it was full. With *ids* only of these."""
        limit = self._claim_size
        full = min(limit, self._lock_size)
        self.unfinished += 1
        try:
            events = await self._settle_one(limit, ids)
        except Exception as error:
            self._lease_for(_FAULT_SECONDS)
            if is_connection_fault(error) or isinstance(root_of(error), TimeoutError):
                # A statement_timeout, ours or the server's, may be shorter than such a batch takes.
                self._claim_size = max(1, limit // 4)
            raise
        self.unfinished -= 1
        return len(events), is_full(events, full)

    def _lease_for(self, seconds: float) -> None:
        self._leased_until = max(self._leased_until, time.monotonic() + seconds)

    async def _settle_one(self, limit: int, ids: Sequence[UUID] | None) -> Sequence[Event]:
        began = time.monotonic()
        events: Sequence[Event] = []
        may_lock = ids is None and limit == self.batch_size and not self.lost_first
        if may_lock and began >= self._leased_until and not self._limited.everything:
            events, tally = await self._lock_and_settle_free(began)
        if not events:
            events, tally = await self._lease_and_settle(limit, ids, self.kinds)
        if events:
            self.tally += tally
            # Otherwise a batch that is too slow for its lease would fail again and again.
            self._claim_size = max(1, limit // 4) if tally["lost"] else min(self.batch_size, 2 * limit)
            log.info("%s of %d events in %.3f s", describe(tally), len(events), time.monotonic() - began)
        return events

    async def _lock_and_settle_free(self, now: float) -> tuple[Sequence[Event], Tally]:
        """Settle a batch of the types without a limit, and now and then what the limits of the others let through."""
        limited = self._limited.kinds
        if not limited:
            return await self._lock_and_settle(self.kinds)
        kinds = frozenset(EntityType if self.kinds is None else self.kinds)
        if now >= self._limited_due:
            self._limited_due = now + min(_LIMITED_SECONDS, self._limited.window_seconds or _LIMITED_SECONDS)
            events, tally = await self._lease_and_settle(self.batch_size, None, kinds & limited)
            if events:
                return events, tally
        return await self._lock_and_settle(kinds - limited)

    async def _lock_and_settle(self, kinds: Collection[EntityType] | None) -> tuple[Sequence[Event], Tally]:
        """Settle a batch of as many events as fit: no other is kept from the other workers meanwhile."""
        while True:
            limit = self._lock_size
            try:
                events, tally = await self.settler.claim_and_settle(limit, kinds)
            except TooManyLocked as locked:
                # With room for larger ones: a claim that locks too many is made again.
                self._lock_size = max(1, locked.fitting * 3 // 4)
            else:
                # Fast after a few large events, slowly where the next size may be too much.
                is_large = is_full(events, limit + 1)
                self._lock_size = min(self.batch_size, limit + limit // 8 + 1 if is_large else 2 * limit)
                return events, tally

    async def _lease_and_settle(
        self, limit: int, ids: Sequence[UUID] | None, kinds: Collection[EntityType] | None
    ) -> tuple[Sequence[Event], Tally]:
        choice: dict[str, Any] = {
            "owner": self.settler.owner,
            "limit": limit,
            "lease_seconds": self.settler.lease_seconds,
            "entities": kinds,
            "ids": ids,
        }
        async with transaction(self.settler.engine, raw_errors=True) as tx:
            events = await claim_lost(tx, **choice) if self.lost_first else []
            self.lost_first = bool(events)
            events = events or await claim(tx, **choice)
            self._limited = await in_force(tx)
        if not events:
            return [], Counter()
        try:
            return events, await self.settler.settle(events)
        except ConnectionFault as error:
            if not self._suspects.is_to_blame(events, error):
                raise
            return events, await self.settler.blame(events[0], error)
