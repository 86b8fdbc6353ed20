"""Bringing a claimed batch to rest: rows and completions in one transaction, and each bad event by itself."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from math import isqrt
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database import spoken
from handlers.errors import DatabaseDown
from handlers.webhooks import queue
from handlers.webhooks.classify import RowsRefused, diagnose, fingerprint, is_gone
from handlers.webhooks.event import DRAIN_ORDER, EntityType, ErrorClass, Event, Outcome, Result, Status
from handlers.webhooks.queue import Failure, LeaseLost

log = logging.getLogger(__name__)

Apply = Callable[[AsyncConnection, Sequence[Event]], Awaitable[Mapping[UUID, Result]]]
"""Writes the rows of a batch in the caller's transaction and says what became of each event.

It raises what only the database refuses. It never begins, commits or rolls back.
"""

Tally = Counter[str]
"""How many events of a batch ended how: applied, superseded, retry, dead_letter, lost, given back."""


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A new transaction that commits at the end.

    Only a failure to open it is translated: what happens inside may be an event's fault and is seen as it is.
    """
    async with AsyncExitStack() as stack:
        with spoken(engine):
            tx = await stack.enter_async_context(engine.begin())
        yield tx


@dataclass(kw_only=True)
class _Done:
    """What became of some events, and who must be woken once it is committed."""

    tally: Tally = field(default_factory=Counter)
    came: set[str] = field(default_factory=set)
    """Keys of records that were written."""
    waiting: list[UUID] = field(default_factory=list)
    """Events that wait for a parent."""

    def add(self, other: _Done) -> None:
        """Take over what became of other events."""
        self.tally += other.tally
        self.came |= other.came
        self.waiting += other.waiting


@dataclass(kw_only=True)
class _Sorted(_Done):
    """What isolating a failed batch has found out so far."""

    failures: list[Failure] = field(default_factory=list)
    back: list[UUID] = field(default_factory=list)
    """Good events that must not run before an older one of the same record, which has to be tried again."""
    held: set[tuple[EntityType, str]] = field(default_factory=set)


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
            async with transaction(self.engine) as tx:
                done = await self._apply(tx, events)
        except Exception as error:  # whatever one event raised: the others must not suffer for it
            _unless_gone(error)
            log.info("a batch of %d events failed (%s): isolating", len(events), type(error).__name__)
            reason = error
        else:
            await self._wake(done)
            return done.tally
        try:
            found = await self._isolate(events, reason)
        except Exception as error:
            _unless_gone(error)
            # Not even event by event, as when only the commit is refused: all share what is known.
            found = _Sorted(failures=[_failure(event, error) for event in events])
        tally = found.tally + await self._record(found)
        await self._wake(found)
        return tally

    async def _wake(self, done: _Done) -> None:
        """Look once more, after the commit, for children and parents that were in two hands at the same time.

        Neither saw the other then: the child found no parent, and the parent no child that waits. Whoever commits last
        sees both. Children that nobody wakes come back by themselves, so a failure here is no failure of the batch.
        """
        try:
            async with transaction(self.engine) as tx:
                if done.came:
                    await queue.wake_children(tx, done.came)
                if done.waiting:
                    await queue.wake_overtaken(tx, done.waiting)
        except Exception as error:
            log.info("could not wake waiting events: %s", diagnose(error).message)

    async def _apply(self, tx: AsyncConnection, events: Sequence[Event]) -> _Done:
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
        failures = [_not_applied(event.id, results[event.id]) for event in events if event.id not in done]
        completed = await queue.complete(tx, owner=self.owner, revision=self.revision, results=done)
        tally = Counter(results[id_].outcome.value for id_ in completed)
        tally += await self._fail(tx, failures)
        if tally.total() != len(events):
            raise LeaseLost(f"{len(events) - tally.total()} of {len(events)} events are no longer ours")
        came = {event.key for event in events if results[event.id].outcome is Outcome.APPLIED}
        await queue.wake_children(tx, came)
        waiting = [each.id for each in failures if each.error_class is ErrorClass.MISSING_PARENT]
        return _Done(tally=tally, came=came, waiting=waiting)

    async def _isolate(self, events: Sequence[Event], reason: Exception) -> _Sorted:
        """Apply the good ones of a batch that failed for *reason*, parents before children.

        Where the database has named the bad ones, all others are applied at once; what nobody has named is looked for
        in pieces.
        """
        found = _Sorted()
        left = sorted(events, key=lambda each: (DRAIN_ORDER.index(each.entity), each.created_at, each.id))
        several: list[Event] = []
        async with transaction(self.engine) as tx:
            while left and isinstance(reason, RowsRefused):
                left = _set_aside(left, reason, found, several)
                try:
                    async with tx.begin_nested():
                        done = await self._apply(tx, left)
                except Exception as error:  # perhaps other rows, which could not be seen before
                    _still_there(tx, error)
                    reason = error
                else:
                    found.add(done)
                    left = []
            for group in (left, several):
                size = max(1, isqrt(len(group)))
                for start in range(0, len(group), size):
                    await self._divide(tx, group[start : start + size], found)
        return found

    async def _divide(self, tx: AsyncConnection, events: Sequence[Event], found: _Sorted) -> None:
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
            _still_there(tx, error)
            if len(ready) == 1:
                _blame(ready[0], error, found)
                return
        else:
            found.add(done)
            return
        size = max(1, isqrt(len(ready)))
        for start in range(0, len(ready), size):
            await self._divide(tx, ready[start : start + size], found)

    async def _record(self, found: _Sorted) -> Tally:
        """Write down in a new transaction why events failed, and give back those that must wait for them."""
        async with transaction(self.engine) as tx:
            tally = await self._fail(tx, found.failures)
            back = await queue.release(tx, owner=self.owner, ids=found.back) if found.back else set()
        tally["given back"] = len(back)
        tally["lost"] = len(found.failures) + len(found.back) - tally.total()
        return +tally

    async def _fail(self, tx: AsyncConnection, failures: Sequence[Failure]) -> Tally:
        """Bury what no retry can cure and let the rest wait. Says how many of them were still ours."""
        tally: Tally = Counter()
        for_ever = [each for each in failures if each.error_class is ErrorClass.PERMANENT]
        for_now = [each for each in failures if each.error_class is not ErrorClass.PERMANENT]
        if for_ever:
            buried = await queue.bury(tx, owner=self.owner, revision=self.revision, failures=for_ever)
            tally[Status.DEAD_LETTER.value] += len(buried)
        if for_now:
            told = await queue.retry_later(
                tx,
                owner=self.owner,
                revision=self.revision,
                failures=for_now,
                base_seconds=self.backoff_seconds,
                cap_seconds=self.backoff_cap_seconds,
            )
            tally += Counter(status.value for status in told.values())
        _tell(failures)
        return tally


def _still_there(tx: AsyncConnection, error: Exception) -> None:
    """Raise DatabaseDown when *error* means that the database is away, and the transaction with it."""
    if tx.invalidated or is_gone(error):
        raise DatabaseDown("the database went away while a batch was applied") from error


def _set_aside(
    events: Sequence[Event], refused: RowsRefused, found: _Sorted, several: list[Event]
) -> list[Event]:
    """Blame the events whose records are *refused*. Returns the others.

    Where *several* events of the batch are about one such record, it is not known which of them is bad.
    """
    bad = [event for event in events if event.entity is refused.entity and event.key in refused.errors]
    times = Counter(event.key for event in bad)
    for event in bad:
        if times[event.key] == 1:
            _blame(event, refused.errors[event.key], found)
        else:
            several.append(event)
    return [
        event for event in events if event.entity is not refused.entity or event.key not in refused.errors
    ]


def _unless_gone(error: Exception) -> None:
    """Raise DatabaseDown when *error* means that the database is away."""
    if is_gone(error):
        raise DatabaseDown("the database went away while a batch was settled") from error


def _blame(event: Event, error: Exception, found: _Sorted) -> None:
    """Note that *event* raised *error*; what is tried again holds back the newer events of its record."""
    if isinstance(error, LeaseLost):
        found.tally["lost"] += 1
        found.held.add((event.entity, event.key))
        return
    failure = _failure(event, error)
    found.failures.append(failure)
    if failure.error_class is not ErrorClass.PERMANENT:
        found.held.add((event.entity, event.key))


def _failure(event: Event, error: Exception) -> Failure:
    told = diagnose(error)
    return Failure(
        id=event.id,
        error_class=told.error_class,
        code=told.code,
        message=told.message,
        sqlstate=told.sqlstate,
        field=told.field,
    )


def _not_applied(id_: UUID, result: Result) -> Failure:
    """An event that its handler turned down: it waits for a parent, or its payload is wrong."""
    waits = result.outcome is Outcome.WAITING
    return Failure(
        id=id_,
        error_class=ErrorClass.MISSING_PARENT if waits else ErrorClass.PERMANENT,
        code=ErrorClass.MISSING_PARENT.value if waits else Outcome.REFUSED.value,
        message=result.reason,
        field=result.field,
    )


def _tell(failures: Sequence[Failure]) -> None:
    """One line for each kind of failure, with masked values: payloads hold customers' data."""
    kinds = Counter((each.error_class.value, each.code, fingerprint(each.message)) for each in failures)
    for (error_class, code, text), times in kinds.most_common():
        log.warning("%d events not applied, %s %s: %s", times, error_class, code, text)
