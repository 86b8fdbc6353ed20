"""One entity type of a sync: its list is read page by page, and what is stale is read one by one and queued.

Each chunk is one transaction: its events, the rows that were found, the calls, and the place where it goes on. A sync
that is killed at any point therefore goes on where it was, and writes nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Core
from handlers.database import clock
from handlers.database.transaction import transaction
from handlers.entities import known
from handlers.entities.incoming import Incoming
from handlers.environment.zoho import Zoho
from handlers.errors import ConfigError, ExitCode, RunbookError
from handlers.queue import background
from handlers.queue.event import EntityType
from handlers.zoho import progress, runs
from handlers.zoho.api import Api, open_api
from handlers.zoho.enqueue import enqueue
from handlers.zoho.listings import LISTINGS, Listing
from handlers.zoho.pages import PAGES_MAX, ListRow, Page, page
from handlers.zoho.progress import Found, Seen, Stage, Step
from handlers.zoho.reader import Batch, Wanted, deletion, read_all
from handlers.zoho.runs import Kind, Run
from handlers.zoho.stale import Need, need, stock_need

log = logging.getLogger(__name__)

CHUNK = 50
"""Records that are read and written together."""
PASSES_MAX = 5
"""Records move between pages while a list is read, so it is read again until there is nothing new in it."""
_LOOK_SECONDS = 0.2
_DELETES_FREE = 5
"""So many missing records are no sign of a list that is broken."""
_KEYS_AT_ONCE = 1000


class QueueIsFull(RunbookError):
    """The workers take nothing. The sync goes on when it is started again."""

    exit_code = ExitCode.HELD


def settings_of(core: Core) -> Zoho:
    """The settings of the source's API. Raises ConfigError where the environment has none."""
    if core.environment.zoho is None:
        raise ConfigError(
            f"{core.environment.name} has no table [zoho], so it cannot be synced: environments/reference.toml has one"
        )
    return core.environment.zoho


async def read(core: Core, run: Run, entity: EntityType) -> Step:
    """Read one entity type to its end, from where it was. Raises what stops it; nothing that was read is lost."""
    settings = settings_of(core)
    async with runs.carried(core.database, run):
        async with transaction(core.database) as tx:
            today = await runs.today(tx, run.environment, settings.calls_per_day)
        async with open_api(settings, today=today) as api:
            reading = _Reading(core, run, LISTINGS[entity], api, settings)
            try:
                return await reading.to_the_end()
            finally:
                # Also the calls of a chunk that was not written.
                await reading.count_calls()


class _Reading:
    """The work on one entity type, in one process."""

    def __init__(self, core: Core, run: Run, listing: Listing, api: Api, settings: Zoho) -> None:
        self._database = core.database
        self._run = run
        self._listing = listing
        self._entity = listing.entity
        self._api = api
        self._settings = settings

    async def to_the_end(self) -> Step:
        now = await self._begun()
        while now.stage is Stage.LISTING:
            now = await self._next_page(now)
        if now.stage is Stage.REMOVING:
            now = await self._may_remove(now)
        while now.stage is Stage.REMOVING:
            now = await self._remove_some(now)
        log.info("sync %d: %s: %d listed, %d read, %d queued, %d deleted", self._run.id, self._entity,
                 now.listed, now.read, now.queued, now.deleted)  # fmt: skip
        return now

    async def count_calls(self) -> None:
        async with transaction(self._database) as tx:
            await runs.count_calls(tx, self._run.environment, self._api.take_calls())

    async def _begun(self) -> Step:
        """Where it goes on; a new one asks the source for its time first."""
        async with transaction(self._database) as tx:
            found = await progress.step(tx, self._run, self._entity)
            if found is not None:
                return found
            read_at, records = await progress.cursor(tx, self._run.environment, self._entity)
        now = await clock.now(self._database)
        first = await page(self._api, self._listing, 1, None)
        since = None
        if self._run.kind is Kind.INCREMENTAL and read_at is not None and self._listing.sort_column:
            since = read_at - timedelta(seconds=self._settings.overlap_seconds)
        async with transaction(self._database) as tx:
            await progress.begin_step(
                tx, self._run, self._entity, read_at=first.at or now, since=since, expected=records
            )
            found = await progress.step(tx, self._run, self._entity)
        assert found is not None
        return found

    async def _next_page(self, now: Step) -> Step:
        got = await page(self._api, self._listing, now.page, now.since)
        rows = {row.key: row for row in got.rows}
        if now.since is not None:
            rows = {key: row for key, row in rows.items() if row.stamp is None or row.stamp >= now.since}
        wanted, unchanged, fresh = await self._compare(rows)
        now = replace(
            now,
            fresh=now.fresh + fresh,
            # A row that cannot be told is counted once, not again with each reading of the list.
            unreadable=now.unreadable + (len(got.faults) if now.number == 1 else 0),
            sentence=got.faults[0] if got.faults else now.sentence,
        )
        chunks = [wanted[at : at + CHUNK] for at in range(0, len(wanted), CHUNK)] or [[]]
        for number, chunk in enumerate(chunks, start=1):
            after = self._after(now, got) if number == len(chunks) else now
            now = await self._write_chunk(now, after, chunk, unchanged if number == 1 else [])
        return now

    async def _compare(self, rows: dict[str, ListRow]) -> tuple[list[Wanted], list[Found], int]:
        """The records that have to be read; those that need not; and how many this sync had not found before."""
        async with transaction(self._database) as tx:
            seen = await progress.seen(tx, self._run, self._entity, rows)
            stored = await known.known(tx, self._entity, rows)
        is_stock = self._run.kind is Kind.STOCK
        wanted: list[Wanted] = []
        unchanged: list[Found] = []
        fresh = 0
        for key, row in rows.items():
            before = seen.get(key)
            fresh += before is None or not before.in_this_run
            if before is not None and before.in_this_run and before.stamp == row.stamp:
                continue
            what = self._need(row, stored.get(key), before, is_stock=is_stock)
            if what is Need.NOTHING:
                unchanged.append(
                    Found(key=key, stamp=row.stamp, harmless=before.harmless if before else None)
                )
            else:
                wanted.append(Wanted(row=row, need=what, stored=stored.get(key), is_stock=is_stock))
        return wanted, unchanged, fresh

    def _need(self, row: ListRow, stored: known.Known | None, before: Seen | None, *, is_stock: bool) -> Need:
        harmless = before.harmless if before is not None else None
        return stock_need(row, stored, harmless) if is_stock else need(self._entity, row, stored, harmless)

    def _after(self, now: Step, got: Page) -> Step:
        """The place after the last row of a page."""
        is_end = got.is_last or (now.since is not None and got.is_older_than(now.since))
        if not is_end and now.page < PAGES_MAX:
            return replace(now, page=now.page + 1)
        # Between the rows of one page nothing can move away unseen.
        if now.page > 1 and (now.number == 1 or now.fresh) and now.number < PASSES_MAX:
            return replace(now, number=now.number + 1, page=1, fresh=0)
        return replace(now, stage=Stage.REMOVING if self._run.kind is Kind.FULL else Stage.DONE)

    async def _write_chunk(
        self, now: Step, after: Step, wanted: Sequence[Wanted], unchanged: Sequence[Found]
    ) -> Step:
        """Read *wanted* and write what came of it; *after* is the place behind it. Raises what stopped the reading."""
        await self._until_there_is_room(len(wanted))
        batch = await read_all(self._api, self._listing, wanted, await clock.now(self._database))
        place = after if batch.stopped is None else now
        return await self._write(place, batch, batch.records, [*unchanged, *batch.found])

    async def _write(
        self,
        place: Step,
        batch: Batch,
        records: Sequence[Incoming],
        found: Sequence[Found],
        *,
        deleted: int = 0,
    ) -> Step:
        calls = self._api.take_calls()
        async with transaction(self._database) as tx:
            queued, refused = await enqueue(tx, self._run, records)
            await progress.see(tx, self._run, self._entity, found)
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
            await progress.advance(tx, self._run, now, calls=calls)
            if now.stage is Stage.DONE:
                await self._finish(tx, now)
        for fault in faults:
            log.warning("sync %d: not readable: %s", self._run.id, fault)
        if batch.stopped is not None:
            raise batch.stopped
        return now

    async def _finish(self, tx: AsyncConnection, now: Step) -> None:
        if self._run.kind is not Kind.STOCK:
            listed = now.listed if now.since is None and self._run.kind is Kind.FULL else None
            await progress.move_cursor(tx, self._run, now, listed)

    async def _until_there_is_room(self, events: int) -> None:
        """Wait while too many events of syncs are in the queue: webhooks must not wait for them for long."""
        most = self._settings.queue_events_max
        began = monotonic()
        former: int | None = None
        while events:
            async with transaction(self._database) as tx:
                waiting = await background.waiting(tx, most + 1)
            if waiting == 0 or waiting + events <= most:
                return
            if former is None or waiting < former:
                began, former = monotonic(), waiting
            if monotonic() - began >= self._settings.queue_wait_seconds:
                raise QueueIsFull(
                    f"{waiting} events of syncs wait in the queue, and no worker took one for "
                    f"{self._settings.queue_wait_seconds:g} s: is a worker running, or the queue limited?"
                )
            await asyncio.sleep(_LOOK_SECONDS)

    async def _may_remove(self, now: Step) -> Step:
        """Go on to the deletes, unless so much is missing that the list is more likely to be wrong."""
        total = missing = 0
        after = ""
        while keys := await self._keys(after):
            total += len(keys)
            missing += len(await self._unseen(keys))
            after = keys[-1]
        percent = 100 * missing / total if total else 0.0
        limit = self._settings.deletes_percent_max
        if missing > _DELETES_FREE and percent > limit and not self._run.deletes_all:
            sentence = (
                f"the source does not list {missing} of {total} {self._entity} records ({percent:.0f} %, more than "
                f"{limit:g} %): none was deleted. If they are gone: "
                f"`runbook sync full -e {self._run.environment} --entity {self._entity} --allow-deletes`"
            )
            now = replace(now, stage=Stage.DONE, sentence=sentence)
            return await self._write(now, Batch(), [], [])
        return now

    async def _remove_some(self, now: Step) -> Step:
        """Look a second time at records that no list has, by their ids, and delete what does not exist."""
        keys = await self._keys(now.after_key)
        if not keys:
            return await self._write(replace(now, stage=Stage.DONE), Batch(), [], [])
        unseen = await self._unseen(keys)
        some = unseen[:CHUNK]
        last = some[-1] if len(unseen) > CHUNK else keys[-1]
        await self._until_there_is_room(len(some))
        async with transaction(self._database) as tx:
            stored = await known.known(tx, self._entity, some)
        wanted = [
            Wanted(row=ListRow(key=key, data={}, stamp=None), need=Need.DRIFTED, stored=stored.get(key))
            for key in some
        ]
        batch = await read_all(self._api, self._listing, wanted, await clock.now(self._database))
        gone = [deletion(self._entity, row.key) for row in batch.gone]
        place = replace(now, after_key=last) if batch.stopped is None else now
        # What was found by its id only is not counted as listed, but it is there.
        return await self._write(place, batch, [*batch.records, *gone], batch.found, deleted=len(gone))

    async def _keys(self, after: str) -> list[str]:
        async with transaction(self._database) as tx:
            return await known.keys_after(tx, self._entity, after, _KEYS_AT_ONCE)

    async def _unseen(self, keys: Sequence[str]) -> list[str]:
        async with transaction(self._database) as tx:
            return await progress.unseen(tx, self._run, self._entity, keys)
