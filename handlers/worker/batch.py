"""Bringing a claimed batch to rest: rows and completions in one transaction, and each bad event by itself."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isqrt
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.sqlstate import is_away
from handlers.database.transaction import transaction
from handlers.errors import DatabaseDown
from handlers.queue import settle, wake
from handlers.queue.diagnose import RowsRefused, diagnose
from handlers.queue.event import DRAIN_ORDER, ErrorClass, Event, Outcome, Result, Status
from handlers.queue.settle import Failure, LeaseLost
from handlers.worker.isolate import (
    BatchResult,
    Isolation,
    Tally,
    failure,
    log_failures,
    not_applied,
    record_failure,
    without_refused,
)

log = logging.getLogger(__name__)

Apply = Callable[[AsyncConnection, Sequence[Event]], Awaitable[Mapping[UUID, Result]]]
"""Writes the rows of a batch in the caller's transaction and says what became of each event.

It raises what only the database refuses. It never begins, commits or rolls back.
"""


@dataclass(frozen=True, kw_only=True)
class Settler:
    """Settles batches in the name of one owner."""

    engine: AsyncEngine
    owner: str
    revision: str
    apply: Apply
    backoff_seconds: float
    backoff_cap_seconds: float

    async def settle(self, events: Sequence[Event]) -> Tally:
        """Apply and complete *events*. Raises DatabaseDown, with nothing changed, when it is away."""
        try:
            async with transaction(self.engine, raw_errors=True) as tx:
                done = await self._apply(tx, events)
        except Exception as error:  # whatever one event raised: the others must not suffer for it
            _raise_if_gone(error)
            log.info("a batch of %d events failed (%s): isolating", len(events), type(error).__name__)
            # Without its traceback, which holds our own frame and so itself, and all rows of the batch.
            reason = error.with_traceback(None)
        else:
            await self._wake(done)
            return done.tally
        try:
            found = await self._isolate(events, reason)
        except Exception as error:
            _raise_if_gone(error)
            # Not even event by event, as when only the commit is refused: all share what is known.
            found = Isolation(failures=[failure(event, error) for event in events])
        tally = found.tally + await self._record(found)
        await self._wake(found)
        return tally

    async def _wake(self, done: BatchResult) -> None:
        """Look once more, after the commit, for children and parents that were in two hands at the same time.

        Neither saw the other then: the child found no parent, and the parent no child that waits. Whoever commits last
        sees both. Children that nobody wakes come back by themselves, so a failure here is no failure of the batch.
        """
        try:
            async with transaction(self.engine, raw_errors=True) as tx:
                if done.came:
                    await wake.wake_children(tx, done.came)
                if done.waiting:
                    await wake.wake_overtaken(tx, done.waiting)
        except Exception as error:
            log.info("could not wake waiting events: %s", diagnose(error).message)

    async def _apply(self, tx: AsyncConnection, events: Sequence[Event]) -> BatchResult:
        """Write the rows of *events* and settle them in one transaction, or raise: then roll it back."""
        results = await self.apply(tx, events)
        silent = [event for event in events if event.id not in results]
        if silent:
            raise LookupError(f"the handler of {silent[0].entity} gave no result")
        done = {
            event.id: results[event.id]
            for event in events
            if results[event.id].outcome in (Outcome.APPLIED, Outcome.SUPERSEDED)
        }
        failures = [not_applied(event.id, results[event.id]) for event in events if event.id not in done]
        completed = await settle.complete(tx, owner=self.owner, revision=self.revision, results=done)
        tally = Counter(results[id_].outcome.value for id_ in completed)
        tally += await self._fail(tx, failures)
        if tally.total() != len(events):
            raise LeaseLost(f"{len(events) - tally.total()} of {len(events)} events are no longer ours")
        came = {event.key for event in events if results[event.id].outcome is Outcome.APPLIED}
        await wake.wake_children(tx, came)
        waiting = [each.id for each in failures if each.error_class is ErrorClass.MISSING_PARENT]
        return BatchResult(tally=tally, came=came, waiting=waiting)

    async def _isolate(self, events: Sequence[Event], reason: Exception) -> Isolation:
        """Apply the good ones of a batch that failed for *reason*, parents before children.

        Where the database has named the bad ones, all others are applied at once; what nobody has named is looked for
        in pieces.
        """
        found = Isolation()
        left = sorted(events, key=_lock_order)
        several: list[Event] = []
        async with transaction(self.engine, raw_errors=True) as tx:
            while left and isinstance(reason, RowsRefused):
                left = without_refused(left, reason, found, several)
                try:
                    async with tx.begin_nested():
                        done = await self._apply(tx, left)
                except Exception as error:  # perhaps other rows, which could not be seen before
                    _raise_if_transaction_gone(tx, error)
                    reason = error.with_traceback(None)
                else:
                    found.add(done)
                    left = []
            await self._divide_all(tx, left, found)
        if several:
            # By themselves: they would take locks of kinds that this transaction has long left behind.
            async with transaction(self.engine, raw_errors=True) as tx:
                await self._divide_all(tx, sorted(several, key=_lock_order), found)
        return found

    async def _divide_all(self, tx: AsyncConnection, events: Sequence[Event], found: Isolation) -> None:
        """Apply *events* piece by piece, each behind a savepoint: the pieces are of the square root's size."""
        size = max(1, isqrt(len(events)))
        for start in range(0, len(events), size):
            await self._divide(tx, events[start : start + size], found)

    async def _divide(self, tx: AsyncConnection, events: Sequence[Event], found: Isolation) -> None:
        """Apply *events* behind one savepoint; when that fails, in pieces: the square root of their number.

        A few bad events among 500 then cost tens of statements, where one savepoint each would cost 500.
        """
        ready = [event for event in events if (event.entity, event.key) not in found.held]
        found.back += [event.id for event in events if (event.entity, event.key) in found.held]
        if not ready:
            return
        try:
            async with tx.begin_nested():
                done = await self._apply(tx, ready)
        except Exception as error:  # recorded below, with the event that caused it
            _raise_if_transaction_gone(tx, error)
            if len(ready) == 1:
                record_failure(ready[0], error, found)
                return
        else:
            found.add(done)
            return
        await self._divide_all(tx, ready, found)

    async def _record(self, found: Isolation) -> Tally:
        """Write down in a new transaction why events failed, and give back those that must wait for them."""
        async with transaction(self.engine, raw_errors=True) as tx:
            tally = await self._fail(tx, found.failures)
            back = await settle.release(tx, owner=self.owner, ids=found.back) if found.back else set()
        tally["given back"] = len(back)
        tally["lost"] = len(found.failures) + len(found.back) - tally.total()
        return +tally

    async def _fail(self, tx: AsyncConnection, failures: Sequence[Failure]) -> Tally:
        """Bury what no retry can cure and let the rest wait. Says how many of them were still ours."""
        tally: Tally = Counter()
        for_ever = [each for each in failures if each.error_class is ErrorClass.PERMANENT]
        for_now = [each for each in failures if each.error_class is not ErrorClass.PERMANENT]
        if for_ever:
            buried = await settle.bury(tx, owner=self.owner, revision=self.revision, failures=for_ever)
            tally[Status.DEAD_LETTER.value] += len(buried)
        if for_now:
            told = await settle.retry_later(
                tx,
                owner=self.owner,
                revision=self.revision,
                failures=for_now,
                base_seconds=self.backoff_seconds,
                cap_seconds=self.backoff_cap_seconds,
            )
            tally += Counter(status.value for status in told.values())
        log_failures(failures)
        return tally


def _lock_order(event: Event) -> tuple[int, str, datetime, UUID]:
    """Parents before children, then by record, as a whole batch locks them; the events of a record in their order.

    Two workers that both look for a bad event would otherwise wait for each other's rows in a circle.
    """
    return DRAIN_ORDER.index(event.entity), event.key, event.created_at, event.id


def _raise_if_transaction_gone(tx: AsyncConnection, error: Exception) -> None:
    """Raise DatabaseDown when *error* means that the database is away, and the transaction with it."""
    if tx.invalidated or is_away(error):
        raise DatabaseDown("the database went away while a batch was applied") from error


def _raise_if_gone(error: Exception) -> None:
    """Raise DatabaseDown when *error* means that the database is away."""
    if is_away(error):
        raise DatabaseDown("the database went away while a batch was settled") from error
