"""What the parts of a sync share: the place that it works on, writing a chunk, and waiting for room in the queue.

Each chunk is one transaction: its events, the rows that were found, the calls, and the place where it goes on. A sync
that is killed at any point therefore goes on where it was, and writes nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database import clock
from handlers.database.transaction import transaction
from handlers.entities.incoming import Incoming
from handlers.environment.zoho import Zoho
from handlers.errors import ExitCode, RunbookError
from handlers.queue import background
from handlers.queue.event import EntityType
from handlers.zoho import progress, runs
from handlers.zoho.api import Api
from handlers.zoho.enqueue import enqueue
from handlers.zoho.listings import Listing
from handlers.zoho.progress import Found, Stage, Step
from handlers.zoho.reader import Batch, Wanted, read_all
from handlers.zoho.runs import Kind, Run

log = logging.getLogger(__name__)

CHUNK = 50
"""Records that are read and written together."""
_LOOK_SECONDS = 0.2


class QueueIsFull(RunbookError):
    """The workers take nothing. The sync goes on when it is started again."""

    exit_code = ExitCode.HELD


@dataclass(frozen=True, kw_only=True)
class Work:
    """One entity type of a sync, in one process."""

    database: AsyncEngine
    run: Run
    listing: Listing
    api: Api
    settings: Zoho

    @property
    def entity(self) -> EntityType:
        """What is read."""
        return self.listing.entity

    async def count_calls(self) -> None:
        """Count the calls of a chunk that was not written."""
        async with transaction(self.database) as tx:
            await runs.count_calls(tx, self.run.environment, self.api.take_calls())

    async def read(self, wanted: Sequence[Wanted]) -> Batch:
        """Read *wanted* when there is room for them in the queue."""
        await self.until_there_is_room(len(wanted))
        return await read_all(self.api, self.listing, wanted, await clock.now(self.database))

    async def write(
        self,
        place: Step,
        batch: Batch,
        records: Sequence[Incoming],
        found: Sequence[Found],
        *,
        deleted: int = 0,
    ) -> Step:
        """Write what came of a chunk, with the *place* behind it. Raises what stopped its reading, if anything did."""
        calls = self.api.take_calls()
        async with transaction(self.database) as tx:
            queued, refused = await enqueue(tx, self.run, records)
            await progress.see(tx, self.run, self.entity, found)
            faults = [*batch.faults, *(f"{each.entity} {each.key}: cannot be stored" for each in refused)]
            now = replace(
                place,
                listed=place.listed + len(found),
                read=place.read + batch.read,
                queued=place.queued + queued,
                deleted=place.deleted + deleted,
                unreadable=place.unreadable + len(faults),
                calls=place.calls + calls,
                sentence=faults[0] if faults else place.sentence,
            )
            today = await progress.advance(tx, self.run, now, calls=calls)
            if now.stage is Stage.DONE:
                await self._finish(tx, now)
        self.api.limit(self.settings.calls_per_day - today)
        for fault in faults:
            log.warning("sync %d: not readable: %s", self.run.id, fault)
        if batch.stopped is not None:
            raise batch.stopped
        return now

    async def _finish(self, tx: AsyncConnection, now: Step) -> None:
        if self.run.kind is not Kind.STOCK:
            listed = now.listed if now.since is None and self.run.kind is Kind.FULL else None
            await progress.move_cursor(tx, self.run, now, listed)

    async def until_there_is_room(self, events: int) -> None:
        """Wait while too many events of syncs are in the queue: webhooks must not wait for them for long."""
        most = self.settings.queue_events_max
        began = monotonic()
        former: int | None = None
        while events:
            async with transaction(self.database) as tx:
                waiting = await background.waiting(tx, most + 1)
            if waiting == 0 or waiting + events <= most:
                return
            if former is None or waiting < former:
                began, former = monotonic(), waiting
            if monotonic() - began >= self.settings.queue_wait_seconds:
                raise QueueIsFull(
                    f"{waiting} events of syncs wait in the queue, and no worker took one for "
                    f"{self.settings.queue_wait_seconds:g} s: is a worker running, or the queue limited?"
                )
            await asyncio.sleep(_LOOK_SECONDS)
