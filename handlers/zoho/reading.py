"""One entity type of a sync: its list is read page by page, and what is stale is read one by one and queued."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

from handlers.core import Core
from handlers.database import clock
from handlers.database.transaction import transaction
from handlers.entities import known
from handlers.environment.zoho import Zoho
from handlers.errors import ConfigError
from handlers.queue.event import EntityType
from handlers.zoho import progress, runs
from handlers.zoho.api import open_api
from handlers.zoho.listings import LISTINGS
from handlers.zoho.missing import may_remove, remove_some
from handlers.zoho.pages import PAGES_MAX, ListRow, Page, page
from handlers.zoho.progress import Found, Stage, Step
from handlers.zoho.reader import Wanted
from handlers.zoho.runs import Kind, Run
from handlers.zoho.stale import Need, need, stock_need
from handlers.zoho.work import CHUNK, Work

log = logging.getLogger(__name__)

PASSES_MAX = 5
"""Records move between pages while a list is read, so it is read again until there is nothing new in it."""
UNSTAMPED_DAYS = 31
"""A full sync reads younger records without a change time again: their list says nothing of their lines."""


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
            work = Work(database=core.database, run=run, listing=LISTINGS[entity], api=api, settings=settings)
            try:
                return await _to_the_end(work)
            finally:
                await work.count_calls()


async def _to_the_end(work: Work) -> Step:
    now = await _begun(work)
    while now.stage is Stage.LISTING:
        now = await _next_page(work, now)
    if now.stage is Stage.REMOVING:
        now = await may_remove(work, now)
    while now.stage is Stage.REMOVING:
        now = await remove_some(work, now)
    log.info(
        "sync %d: %s: %d listed, %d read, %d queued, %d deleted",
        work.run.id, work.entity, now.listed, now.read, now.queued, now.deleted,
    )  # fmt: skip
    return now


async def _begun(work: Work) -> Step:
    """Where it goes on; a new one asks the source for its time first."""
    async with transaction(work.database) as tx:
        found = await progress.step(tx, work.run, work.entity)
        if found is not None:
            return found
        read_at, records = await progress.cursor(tx, work.run.environment, work.entity)
    now = await clock.now(work.database)
    first = await page(work.api, work.listing, 1, None)
    since = None
    if work.run.kind is Kind.INCREMENTAL and read_at is not None and work.listing.sort_column:
        since = read_at - timedelta(seconds=work.settings.overlap_seconds)
    async with transaction(work.database) as tx:
        await progress.begin_step(
            tx, work.run, work.entity, read_at=first.at or now, since=since, expected=records
        )
        found = await progress.step(tx, work.run, work.entity)
    assert found is not None
    return found


async def _next_page(work: Work, now: Step) -> Step:
    got = await page(work.api, work.listing, now.page, now.since)
    rows = {row.key: row for row in got.rows}
    if now.since is not None:
        rows = {key: row for key, row in rows.items() if row.stamp is None or row.stamp >= now.since}
    unstamped_since = (now.read_at - timedelta(days=UNSTAMPED_DAYS)).date()
    wanted, unchanged, fresh = await _compare(work, rows, unstamped_since)
    now = replace(
        now,
        fresh=now.fresh + fresh,
        # A row that cannot be told is counted once, not again with each reading of the list.
        unreadable=now.unreadable + (len(got.faults) if now.number == 1 else 0),
        sentence=got.faults[0] if got.faults else now.sentence,
    )
    chunks = [wanted[at : at + CHUNK] for at in range(0, len(wanted), CHUNK)] or [[]]
    for number, chunk in enumerate(chunks, start=1):
        after = _after(work, now, got) if number == len(chunks) else now
        now = await _write_chunk(work, now, after, chunk, unchanged if number == 1 else [])
    return now


async def _compare(
    work: Work, rows: dict[str, ListRow], since: date
) -> tuple[list[Wanted], list[Found], int]:
    """The records that have to be read; those that need not; and how many this sync had not found before."""
    async with transaction(work.database) as tx:
        seen = await progress.seen(tx, work.run, work.entity, rows)
        stored = await known.known(tx, work.entity, rows)
    is_stock = work.run.kind is Kind.STOCK
    is_full = work.run.kind is Kind.FULL
    wanted: list[Wanted] = []
    unchanged: list[Found] = []
    fresh = 0
    for key, row in rows.items():
        before = seen.get(key)
        fresh += before is None or not before.in_this_run
        if before is not None and before.in_this_run and before.stamp == row.stamp:
            continue
        harmless = before.harmless if before is not None else None
        what = (
            stock_need(row, stored.get(key), harmless)
            if is_stock
            else need(work.entity, row, stored.get(key), harmless, since=since if is_full else None)
        )
        if what is Need.NOTHING:
            unchanged.append(Found(key=key, stamp=row.stamp, harmless=harmless))
        else:
            wanted.append(Wanted(row=row, need=what, stored=stored.get(key), is_stock=is_stock))
    return wanted, unchanged, fresh


def _after(work: Work, now: Step, got: Page) -> Step:
    """The place after the last row of a page."""
    is_end = got.is_last or (now.since is not None and got.is_older_than(now.since))
    if not is_end and now.page < PAGES_MAX:
        return replace(now, page=now.page + 1)
    # Between the rows of one page nothing can move away unseen.
    if now.page > 1 and (now.number == 1 or now.fresh) and now.number < PASSES_MAX:
        return replace(now, number=now.number + 1, page=1, fresh=0)
    return replace(now, stage=Stage.REMOVING if work.run.kind is Kind.FULL else Stage.DONE)


async def _write_chunk(
    work: Work, now: Step, after: Step, wanted: Sequence[Wanted], unchanged: Sequence[Found]
) -> Step:
    """Read *wanted* and write what came of it; *after* is the place behind it. Raises what stopped the reading."""
    batch = await work.read(wanted)
    place = after if batch.stopped is None else now
    return await work.write(place, batch, batch.records, [*unchanged, *batch.found])
