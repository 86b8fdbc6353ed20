"""The worker that a deployed ERP runs: claim, apply and complete batches until it is stopped.

On a lost connection it waits, releases its leases without counting an attempt, and continues.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.privileges import Need
from handlers.database.sqlstate import NOT_ADOPTED, is_away, is_connection_fault, sqlstate
from handlers.database.transaction import transaction
from handlers.entities.apply import apply_events
from handlers.errors import DatabaseDown, LoginRefused, Refused
from handlers.queue import look, settle
from handlers.queue.diagnose import diagnose
from handlers.queue.event import SETTLED, EntityType
from handlers.queue.look import EventState
from handlers.queue.wake import wake_arrived
from handlers.worker.batch import Apply, Settler
from handlers.worker.connection_faults import is_survivable
from handlers.worker.foreign import with_foreign_events
from handlers.worker.heartbeat import Heartbeat
from handlers.worker.isolate import Tally, describe
from handlers.worker.listen import listen
from handlers.worker.needs import raise_if_denied
from handlers.worker.step import Stepper
from handlers.worker.waiting import CANCEL_SECONDS, first_of, until_stopped

log = logging.getLogger(__name__)

_PAUSE_FIRST_SECONDS, _PAUSE_MAX_SECONDS = 0.2, 10.0
"""The backoff of the connection attempts while the database is down."""
_SHUTDOWN_SECONDS = 2.0
"""Together with the grace of six seconds and `CANCEL_SECONDS`, a stop takes less than ten."""
_POLL_MIN_SECONDS = 0.05
_LANES = 2
"""Concurrent batches under load: one is parsed while the database works for the other."""


class Worker:
    """One worker. *owner* must be unique, also after a restart: `new_owner` makes one."""

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
        backoff_seconds: float = settle.BACKOFF_SECONDS,
        backoff_cap_seconds: float = settle.BACKOFF_CAP_SECONDS,
        wait_seconds: float = settle.WAIT_SECONDS_MAX,
        kinds: Collection[EntityType] | None = None,
        needs: Sequence[Need] = (),
    ) -> None:
        self.owner = owner
        self.revision = revision
        self._engine = engine
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._beat_seconds = beat_seconds
        self._grace_seconds = grace_seconds
        self._needs = needs
        self._may_work = False
        settler = Settler(
            engine=engine,
            owner=owner,
            revision=revision,
            apply=with_foreign_events(apply, owner),
            backoff_seconds=backoff_seconds,
            backoff_cap_seconds=backoff_cap_seconds,
            wait_seconds=wait_seconds,
            lease_seconds=lease_seconds,
            needs=needs,
        )
        self._stepper = Stepper(settler=settler, batch_size=batch_size, kinds=kinds)
        self._heartbeat = Heartbeat(engine=engine, owner=owner, revision=revision)
        self._maintenance_due = 0.0
        self._beat_due = 0.0

    @property
    def tally(self) -> Tally:
        """The outcomes of all events so far."""
        return self._stepper.tally

    async def run(self, stop: asyncio.Event) -> None:
        """Work until *stop* is set; then finish the current batch, or release it if that takes too long.

        Raises Refused when the database user may not do what is needed: nothing was changed then.
        """
        wake = asyncio.Event()
        listener = asyncio.create_task(listen(self._engine, wake, self.owner))
        log.info("worker %s of revision %s starts", self.owner, self.revision)
        pause = _PAUSE_FIRST_SECONDS
        try:
            while not stop.is_set():
                wake.clear()
                try:
                    if not self._may_work:
                        await raise_if_denied(self._engine, self._needs)
                        self._may_work = True
                    await self._maintain()
                    worked = await until_stopped(self._settle_batches(stop), stop, self._grace_seconds)
                    pause = _PAUSE_FIRST_SECONDS
                except Exception as error:
                    if sqlstate(error) in NOT_ADOPTED:
                        raise Refused(f"the queue cannot be used: {diagnose(error).message}") from error
                    # A login that worked before is being changed: a worker that ended would be started too often.
                    if not is_survivable(error) and not (self._may_work and isinstance(error, LoginRefused)):
                        raise
                    if is_connection_fault(error) and self._stepper.can_shrink:
                        pause = _PAUSE_FIRST_SECONDS  # The next batch is smaller.
                    log.warning("retrying in %.1f s: %s", pause, diagnose(error).message)
                    await first_of(pause, stop)
                    pause = min(2 * pause, _PAUSE_MAX_SECONDS)
                    continue
                if not worked:
                    # In a rehearsal a limit may let more through several times a second.
                    window = self._stepper.limit_window_seconds or self._poll_seconds
                    await first_of(min(self._poll_seconds, max(window, _POLL_MIN_SECONDS)), stop, wake)
        finally:
            listener.cancel()
            await asyncio.wait({listener}, timeout=CANCEL_SECONDS)
            await self._record_shutdown()
            log.info("worker %s ends: %s", self.owner, describe(self.tally))

    async def run_until_settled(self, ids: Sequence[UUID], limit_seconds: float) -> list[EventState]:
        """Apply exactly the events *ids* until they have settled or *limit_seconds* have passed; returns their states.

        For environments without their own workers. Raises DatabaseDown when the connection is lost.
        """
        deadline = time.monotonic() + limit_seconds
        try:
            while True:
                async with transaction(self._engine, raw_errors=True) as tx:
                    await settle.expire_leases(tx)
                    states = await look.states(tx, ids)
                open_ids = [state.id for state in states if state.status not in SETTLED]
                remaining = deadline - time.monotonic()
                if not open_ids or remaining <= 0:
                    return states
                with suppress(TimeoutError):
                    async with asyncio.timeout(remaining):
                        if not await self._step_or_release(open_ids):
                            await asyncio.sleep(self._poll_seconds)
        except Exception as error:
            if is_away(error):
                raise DatabaseDown("the connection to the queue's database was lost") from error
            raise
        finally:
            await self._record_shutdown()

    async def step(self, *, ids: Sequence[UUID] | None = None) -> int:
        """Claim one batch and settle it. Returns the number of claimed events; 0 when none was due."""
        claimed, _ = await self._stepper.step(ids)
        return claimed

    async def _step_or_release(self, ids: Sequence[UUID]) -> int:
        """One step. A connection that breaks down is replaced: its events go back, and 0 is returned."""
        try:
            return await self.step(ids=ids)
        except Exception as error:
            if not is_connection_fault(error):
                raise
            log.warning("trying again on a new connection: %s", diagnose(error).message)
            await self._release_leases()
            return 0

    async def _settle_batches(self, stop: asyncio.Event) -> int:
        """Settle batches until one is not full, or maintenance is due. Returns the number of claimed events.

        After a full batch, several run concurrently: this process parses payloads while the database stores rows.
        What each has claimed separates them like two workers.
        """
        claimed_total, more = await self._stepper.step()
        if not more:
            return claimed_total
        until = min(self._beat_due, self._maintenance_due)

        async def lane() -> int:
            """Settle one batch after the other."""
            total = 0
            while not stop.is_set() and time.monotonic() < until:
                claimed, more = await self._stepper.step()
                total += claimed
                if not more:
                    break
            return total

        # All lanes end before the first error is raised: until then, events leased to us may be in progress.
        results = await asyncio.gather(*(lane() for _ in range(_LANES)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            claimed_total += result
        return claimed_total

    async def _maintain(self) -> None:
        """Release leases left by a lost connection, send the heartbeat, and expire the leases of dead workers."""
        now = time.monotonic()
        if self._stepper.unfinished:
            await self._release_leases()
        if now >= self._beat_due:
            self._beat_due = now + self._beat_seconds
            await self._heartbeat.beat(self.tally)
            async with transaction(self._engine, raw_errors=True) as tx:
                await self._stepper.look_around(tx)
            await self._expire()
        if now >= self._maintenance_due:
            self._maintenance_due = now + min(30.0, self._lease_seconds / 2)
            await self._expire()
            self._stepper.lost_first = True
            async with transaction(self._engine, raw_errors=True) as tx:
                unknown = await settle.refuse_unknown(tx)
                # A worker that was killed after it applied a parent has not woken its children.
                await wake_arrived(tx)
            if unknown:
                log.warning("%d events of an unknown kind buried", len(unknown))

    async def _expire(self) -> None:
        async with transaction(self._engine, raw_errors=True) as tx:
            expired = await settle.expire_leases(tx)
        if expired:
            self._stepper.lost_first = True
            log.warning("%d events taken back from workers that are gone", len(expired))

    async def _release_leases(self) -> None:
        async with transaction(self._engine, raw_errors=True) as tx:
            released = await settle.release(tx, owner=self.owner)
        self._stepper.unfinished = 0
        if released:
            log.warning("released %d events without counting an attempt", len(released))

    async def _record_shutdown(self) -> None:
        """Release our leases and record the clean shutdown. A lease that cannot be released now expires."""
        try:
            async with asyncio.timeout(_SHUTDOWN_SECONDS):
                if self._stepper.unfinished:
                    await self._release_leases()
                await self._heartbeat.stop(self.tally)
        except Exception as error:  # the process ends in any case, and the lease expires
            log.warning("clean shutdown not recorded: %s", diagnose(error).message)


def new_owner(name: str | None = None) -> str:
    """An owner token that is unique among processes and restarts."""
    return f"{name or socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
