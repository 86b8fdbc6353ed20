"""The worker that a deployed ERP runs: claim, apply, complete, until it is told to stop.

A lost database is nobody's fault: the worker waits, gives back what it held, burns no attempt, and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Collection, Coroutine, Sequence
from contextlib import suppress
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.sqlstate import is_away
from handlers.database.transaction import transaction
from handlers.entities.apply import apply_events
from handlers.errors import DatabaseDown
from handlers.queue import look, settle
from handlers.queue.claim import claim
from handlers.queue.diagnose import diagnose
from handlers.queue.event import SETTLED, EntityType, ErrorClass
from handlers.queue.look import EventState
from handlers.queue.wake import wake_arrived
from handlers.worker.batch import Apply, Settler
from handlers.worker.foreign import with_foreign_events
from handlers.worker.heartbeat import Heartbeat
from handlers.worker.isolate import Tally, describe
from handlers.worker.listen import listen

log = logging.getLogger(__name__)

_PAUSE_FIRST_SECONDS, _PAUSE_MAX_SECONDS = 0.2, 10.0
"""Between looks at a database that is away."""
_CANCEL_SECONDS, _FAREWELL_SECONDS = 1.0, 2.0
"""With the grace of six seconds, a stop is over within ten."""
_LANES = 2
"""Batches in hand at once while there is much to do: one is read while the database works for the other."""


class Worker:
    """One worker. *owner* must be its own alone, also after a restart: `new_owner` makes one."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        owner: str,
        revision: str,
        apply: Apply = apply_events,
        batch_size: int = 1000,
        lease_seconds: float = 300,
        poll_seconds: float = 1.0,
        beat_seconds: float = 5.0,
        grace_seconds: float = 6.0,
        backoff_seconds: float = 120,
        backoff_cap_seconds: float = 3600,
        kinds: Collection[EntityType] | None = None,
    ) -> None:
        self.owner = owner
        self.revision = revision
        self.tally: Tally = Counter()
        """What became of all events so far."""
        self._engine = engine
        self._batch_size = batch_size
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._beat_seconds = beat_seconds
        self._grace_seconds = grace_seconds
        self._kinds = kinds
        self._settler = Settler(
            engine=engine,
            owner=owner,
            revision=revision,
            apply=with_foreign_events(apply, owner),
            backoff_seconds=backoff_seconds,
            backoff_cap_seconds=backoff_cap_seconds,
        )
        self._heartbeat = Heartbeat(engine=engine, owner=owner, revision=revision)
        self._at_once = batch_size
        """How many events are claimed at once: fewer after a batch that took longer than its lease."""
        self._unfinished = 0
        """Steps that have begun and not come to a good end: what they claimed may still be in our name."""
        self._house_due = 0.0
        self._beat_due = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until *stop* is set; then finish the batch in hand, or give it back if that takes long."""
        wake = asyncio.Event()
        listener = asyncio.create_task(listen(self._engine, wake))
        log.info("worker %s of revision %s starts", self.owner, self.revision)
        pause = _PAUSE_FIRST_SECONDS
        try:
            while not stop.is_set():
                wake.clear()
                try:
                    await self._keep_house()
                    worked = await self._until_stopped(self._burst(stop), stop)
                    pause = _PAUSE_FIRST_SECONDS
                except Exception as error:
                    if not (is_away(error) or diagnose(error).error_class is ErrorClass.TRANSIENT):
                        raise
                    log.warning("no work for %.1f s: %s", pause, diagnose(error).message)
                    await _first_of(pause, stop)
                    pause = min(2 * pause, _PAUSE_MAX_SECONDS)
                    continue
                if not worked:
                    await _first_of(self._poll_seconds, stop, wake)
        finally:
            listener.cancel()
            await asyncio.wait({listener}, timeout=_CANCEL_SECONDS)
            await self._say_farewell()
            log.info("worker %s ends: %s", self.owner, describe(self.tally))

    async def run_until_settled(self, ids: Sequence[UUID], limit_seconds: float) -> list[EventState]:
        """Work on exactly the events *ids* until they have come to rest or time is up; says where they stand.

        For environments without workers of their own. Raises DatabaseDown when the database goes away.
        """
        deadline = time.monotonic() + limit_seconds
        try:
            while True:
                async with transaction(self._engine, raw_errors=True) as tx:
                    await settle.expire_leases(tx)
                    found = await look.states(tx, ids)
                open_ids = [each.id for each in found if each.status not in SETTLED]
                left = deadline - time.monotonic()
                if not open_ids or left <= 0:
                    return found
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        if not await self.step(ids=open_ids):
                            await asyncio.sleep(self._poll_seconds)
        except Exception as error:
            if is_away(error):
                raise DatabaseDown("the queue's database went away") from error
            raise
        finally:
            await self._say_farewell()

    async def step(self, *, ids: Sequence[UUID] | None = None) -> int:
        """Claim one batch and bring it to rest. Returns how many events were claimed; 0 when none was due."""
        claimed, _ = await self._step(ids)
        return claimed

    async def _step(self, ids: Sequence[UUID] | None = None) -> tuple[int, bool]:
        """One step, and whether there was a whole batch to do."""
        began = time.perf_counter()
        limit = self._at_once
        self._unfinished += 1
        async with transaction(self._engine, raw_errors=True) as tx:
            events = await claim(
                tx,
                owner=self.owner,
                limit=limit,
                lease_seconds=self._lease_seconds,
                entities=self._kinds,
                ids=ids,
            )
        if events:
            tally = await self._settler.settle(events)
            self.tally += tally
            # Else a batch that is too slow for its lease is done in vain, again and again.
            self._at_once = max(1, limit // 4) if tally["lost"] else min(self._batch_size, 2 * self._at_once)
            log.info("%s of %d events in %.3f s", describe(tally), len(events), time.perf_counter() - began)
        self._unfinished -= 1
        return len(events), len(events) >= limit

    async def _burst(self, stop: asyncio.Event) -> int:
        """Bring batches to rest until none is full, or it is time to keep house. Returns how many events it were.

        As soon as there is more than one batch, several are in hand: reading payloads is our work and storing rows
        the database's, and neither needs to wait for the other. Their leases keep them apart like two workers.
        """
        done, more = await self._step()
        if not more:
            return done
        until = min(self._beat_due, self._house_due)

        async def lane() -> int:
            """One batch after the other."""
            total = 0
            while not stop.is_set() and time.monotonic() < until:
                claimed, more = await self._step()
                total += claimed
                if not more:
                    break
            return total

        # All come to an end before the first error is told: until then, what is in our name may be in hand.
        ended = await asyncio.gather(*(lane() for _ in range(_LANES)), return_exceptions=True)
        for each in ended:
            if isinstance(each, BaseException):
                raise each
            done += each
        return done

    async def _until_stopped(self, work: Coroutine[None, None, int], stop: asyncio.Event) -> int:
        """Do *work*; once stopped it has a moment to end by itself, then it is cancelled and undone."""
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await asyncio.wait({task}, timeout=self._grace_seconds)
            return task.result() if task.done() else 0
        finally:
            stopped.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CANCEL_SECONDS)

    async def _keep_house(self) -> None:
        """Give back what a lost connection left in our name, beat, and take back what others have lost."""
        now = time.monotonic()
        if self._unfinished:
            await self._give_back()
        if now >= self._beat_due:
            self._beat_due = now + self._beat_seconds
            await self._heartbeat.beat(self.tally)
        if now >= self._house_due:
            self._house_due = now + min(30.0, self._lease_seconds / 2)
            async with transaction(self._engine, raw_errors=True) as tx:
                expired = await settle.expire_leases(tx)
                strange = await settle.refuse_unknown(tx)
                # A worker that was killed after it brought a parent has woken nobody.
                await wake_arrived(tx)
            if expired or strange:
                log.warning("%d leases ran out, %d events of unknown kind buried", len(expired), len(strange))

    async def _give_back(self) -> None:
        async with transaction(self._engine, raw_errors=True) as tx:
            back = await settle.release(tx, owner=self.owner)
        self._unfinished = 0
        if back:
            log.warning("gave %d events back, no attempt burnt", len(back))

    async def _say_farewell(self) -> None:
        """Leave nothing behind in our name. What cannot be given back now comes back with the lease's end."""
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                if self._unfinished:
                    await self._give_back()
                await self._heartbeat.stop(self.tally)
        except (DatabaseDown, TimeoutError) as error:
            log.warning("could not say farewell: %s", error or type(error).__name__)


def new_owner(name: str | None = None) -> str:
    """An owner token that no other process, and not this one after a restart, will ever have."""
    return f"{name or socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


async def _first_of(seconds: float, *events: asyncio.Event) -> None:
    """Wait until one of *events* is set, at most *seconds*."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
