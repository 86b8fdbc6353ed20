"""Settling a claimed batch: rows and completions in one transaction, each bad event separately."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isqrt
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.privileges import Need
from handlers.database.sqlstate import NOT_ADOPTED, sqlstate
from handlers.database.transaction import transaction
from handlers.queue import claim, in_hand, settle, wake
from handlers.queue.diagnose import RowsRefused, diagnose
from handlers.queue.event import DRAIN_ORDER, EntityType, ErrorClass, Event, Outcome, Result, Status
from handlers.queue.settle import Failure, LeaseLost
from handlers.worker.connection_faults import raise_if_no_fault_of_an_event, raise_if_transaction_lost
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
from handlers.worker.needs import raise_if_denied

log = logging.getLogger(__name__)

Apply = Callable[[AsyncConnection, Sequence[Event]], Awaitable[Mapping[UUID, Result]]]
"""Writes the rows of a batch in the caller's transaction; returns a result for each event id.

It raises the database's own errors. It never begins, commits or rolls back.
"""


@dataclass(frozen=True, kw_only=True)
class Settler:
    """Settles batches of one lease owner."""

    engine: AsyncEngine
    owner: str
    revision: str
    apply: Apply
    backoff_seconds: float
    backoff_cap_seconds: float
    wait_seconds: float = settle.WAIT_SECONDS_MAX
    """How long an event waits for a parent of which no event is open."""
    lease_seconds: float = 300
    needs: Sequence[Need] = ()
    """What this worker does with which table."""

    async def settle(self, events: Sequence[Event]) -> Tally:
        """Apply and complete *events*, which are leased to us.

        Raises DatabaseDown when the connection is lost, ConnectionFault when it cannot be used, and Refused when a
        privilege or a column is missing. Nothing was changed then.
        """
        try:
            async with transaction(self.engine, raw_errors=True) as tx:
                done = await self._apply(tx, events)
        except Exception as error:  # one bad event must not stop the others
            return await self._settle_apart(events, await self._reason(events, error))
        await self._wake(done)
        return done.tally

    async def claim_and_settle(
        self, limit: int, kinds: Collection[EntityType] | None
    ) -> tuple[Sequence[Event], Tally]:
        """Claim up to *limit* events by row locks, and apply and complete them in the same transaction.

        Without a lease each event is changed once. If that fails, the events are leased and settled as leased ones are.
        Returns nothing where batches cannot be noted. Raises what `settle` raises.
        """
        batch = in_hand.new_batch()
        events: Sequence[Event] = []
        try:
            async with transaction(self.engine, raw_errors=True) as tx:
                if await in_hand.is_there(tx):
                    events = await claim.lock(tx, batch=batch, limit=limit, entities=kinds)
                if not events:
                    return [], Counter()
                await in_hand.note(self.engine, batch=batch, owner=self.owner, events=events)
                done = await self._apply(tx, events, lock_seconds=self.lease_seconds)
                await in_hand.done(tx, batch)
        except Exception as error:  # one bad event must not stop the others
            if not events:
                raise
            reason = await self._reason(events, error)
        else:
            await self._wake(done)
            return events, done.tally
        async with transaction(self.engine, raw_errors=True) as tx:
            await in_hand.done(tx, batch)
            # Another worker may have been faster with some of them.
            events = await claim.claim(
                tx,
                owner=self.owner,
                limit=limit,
                lease_seconds=self.lease_seconds,
                entities=kinds,
                ids=[event.id for event in events],
            )
        return events, await self._settle_apart(events, reason) if events else Counter()

    async def _reason(self, events: Sequence[Event], error: Exception) -> Exception:
        """The error of a batch, if it can be the fault of one of its events; otherwise it is raised."""
        raise_if_no_fault_of_an_event(error)
        if sqlstate(error) in NOT_ADOPTED:
            # What is missing for all events is not the fault of one.
            await raise_if_denied(self.engine, self.needs)
        log.info("a batch of %d events failed (%s): isolating", len(events), type(error).__name__)
        # Without its traceback: it is a reference cycle through the caller's frame, and keeps all rows of the batch.
        return error.with_traceback(None)

    async def _settle_apart(self, events: Sequence[Event], reason: Exception) -> Tally:
        """Settle each event of a batch that failed for *reason*: the good ones are completed, the bad ones recorded."""
        try:
            isolation = await self._isolate(events, reason)
        except Exception as error:
            raise_if_no_fault_of_an_event(error)
            # Isolation failed too, as when only the commit is refused: all events get the same error.
            isolation = Isolation(failures=[failure(event, error) for event in events])
        tally = isolation.tally + await self._record(isolation)
        await self._wake(isolation)
        return tally

    async def blame(self, event: Event, error: Exception) -> Tally:
        """Record *error* as the failure of *event*, which is retried later."""
        return await self._record(Isolation(failures=[failure(event, error)]))

    async def _wake(self, done: BatchResult) -> None:
        """After the commit, wake children whose parent was in another worker's transaction at the same time.

        Neither transaction saw the other: the child found no parent, the parent no waiting child. The worker that
        commits last sees both. A child that is not woken retries after its backoff, so an error here is only logged.
        """
        try:
            async with transaction(self.engine, raw_errors=True) as tx:
                if done.written:
                    await wake.wake_children(tx, done.written)
                if done.waiting:
                    await wake.wake_overtaken(tx, done.waiting)
        except Exception as error:
            log.info("waiting events were not woken: %s", diagnose(error).message)

    async def _apply(
        self, tx: AsyncConnection, events: Sequence[Event], *, lock_seconds: float | None = None
    ) -> BatchResult:
        """Write the rows of *events* and settle them. On an error the caller rolls back."""
        results = await self.apply(tx, events)
        unanswered = [event for event in events if event.id not in results]
        if unanswered:
            raise LookupError(f"the handler of {unanswered[0].entity} gave no result")
        done = {
            event.id: results[event.id]
            for event in events
            if results[event.id].outcome in (Outcome.APPLIED, Outcome.SUPERSEDED)
        }
        failures = [not_applied(event.id, results[event.id]) for event in events if event.id not in done]
        completed = await settle.complete(
            tx, owner=self.owner, revision=self.revision, results=done, lock_seconds=lock_seconds
        )
        tally = Counter(results[id_].outcome.value for id_ in completed)
        tally += await self._fail(tx, failures, lock_seconds=lock_seconds)
        if tally.total() != len(events):
            raise LeaseLost(f"lost the lease of {len(events) - tally.total()} of {len(events)} events")
        written = {
            event.key
            for event in events
            if results[event.id].outcome is Outcome.APPLIED
            # It waits for a number, and has given up the one that it had.
            or (results[event.id].outcome is Outcome.WAITING and results[event.id].target is not None)
        }
        await wake.wake_children(tx, written)
        waiting = [failed.id for failed in failures if failed.error_class is ErrorClass.MISSING_PARENT]
        return BatchResult(tally=tally, written=written, waiting=waiting)

    async def _isolate(self, events: Sequence[Event], reason: Exception) -> Isolation:
        """Apply the good events of a batch that failed for *reason*, parents before children.

        When the database named the bad records, all other events are applied at once. Otherwise the batch is divided
        until the bad events are found.
        """
        isolation = Isolation()
        remaining = sorted(events, key=_lock_order)
        shared: list[Event] = []
        async with transaction(self.engine, raw_errors=True) as tx:
            while remaining and isinstance(reason, RowsRefused):
                remaining = without_refused(remaining, reason, isolation, shared)
                try:
                    async with tx.begin_nested():
                        done = await self._apply(tx, remaining)
                except Exception as error:  # perhaps other rows, hidden by the first error
                    raise_if_transaction_lost(tx, error)
                    reason = error.with_traceback(None)
                else:
                    isolation.add(done)
                    remaining = []
            await self._divide_all(tx, remaining, isolation)
        if shared:
            # In a transaction of their own: here they would lock parents after children, and could deadlock.
            async with transaction(self.engine, raw_errors=True) as tx:
                await self._divide_all(tx, sorted(shared, key=_lock_order), isolation)
        return isolation

    async def _divide_all(self, tx: AsyncConnection, events: Sequence[Event], isolation: Isolation) -> None:
        """Apply *events* in pieces of the square root of their number, each behind a savepoint."""
        size = max(1, isqrt(len(events)))
        for start in range(0, len(events), size):
            await self._divide(tx, events[start : start + size], isolation)

    async def _divide(self, tx: AsyncConnection, events: Sequence[Event], isolation: Isolation) -> None:
        """Apply *events* behind one savepoint; when that fails, divide them.

        A few bad events among 500 then cost tens of statements. One savepoint for each event would cost 500.
        """
        ready = [event for event in events if (event.entity, event.key) not in isolation.held]
        isolation.deferred += [event.id for event in events if (event.entity, event.key) in isolation.held]
        if not ready:
            return
        try:
            async with tx.begin_nested():
                done = await self._apply(tx, ready)
        except Exception as error:  # recorded below, with the event that caused it
            raise_if_transaction_lost(tx, error)
            if len(ready) == 1:
                record_failure(ready[0], error, isolation)
                return
        else:
            isolation.add(done)
            return
        await self._divide_all(tx, ready, isolation)

    async def _record(self, isolation: Isolation) -> Tally:
        """Record the failures in a new transaction, and release the events that must wait for them."""
        async with transaction(self.engine, raw_errors=True) as tx:
            tally = await self._fail(tx, isolation.failures)
            released = (
                await settle.release(tx, owner=self.owner, ids=isolation.deferred)
                if isolation.deferred
                else set()
            )
        tally["released"] = len(released)
        tally["lost"] = len(isolation.failures) + len(isolation.deferred) - tally.total()
        return +tally

    async def _fail(
        self, tx: AsyncConnection, failures: Sequence[Failure], *, lock_seconds: float | None = None
    ) -> Tally:
        """Bury permanent failures and schedule a retry of the others. Counts those that were still leased to us."""
        tally: Tally = Counter()
        permanent = [failed for failed in failures if failed.error_class is ErrorClass.PERMANENT]
        retried = [failed for failed in failures if failed.error_class is not ErrorClass.PERMANENT]
        if permanent:
            buried = await settle.bury(
                tx,
                owner=self.owner,
                revision=self.revision,
                failures=permanent,
                lock_seconds=lock_seconds,
            )
            tally[Status.DEAD_LETTER.value] += len(buried)
        if retried:
            statuses = await settle.retry_later(
                tx,
                owner=self.owner,
                revision=self.revision,
                failures=retried,
                base_seconds=self.backoff_seconds,
                cap_seconds=self.backoff_cap_seconds,
                wait_seconds=self.wait_seconds,
                lock_seconds=lock_seconds,
            )
            tally += Counter(status.value for status in statuses.values())
        log_failures(failures)
        return tally


def _lock_order(event: Event) -> tuple[int, str, datetime, UUID]:
    """Parents before children, then by record, as a whole batch locks them; then the order of a record's events.

    Without it, two workers that isolate bad events could deadlock.
    """
    return DRAIN_ORDER.index(event.entity), event.key, event.created_at, event.id
