"""What a sync would change, without changing anything: only lists are read, and compared with the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from handlers.core import Core
from handlers.database import migrate
from handlers.database.transaction import transaction
from handlers.entities import known
from handlers.queue.event import EntityType
from handlers.zoho import progress
from handlers.zoho.api import Api, Today, open_api
from handlers.zoho.listings import LISTINGS
from handlers.zoho.pages import PAGES_MAX, page
from handlers.zoho.reading import settings_of
from handlers.zoho.runs import Kind
from handlers.zoho.stale import Need, need, stock_need

EXAMPLES_MAX = 20
_KEYS_AT_ONCE = 1000


@dataclass(kw_only=True)
class Preview:
    """What a sync would do with one entity type."""

    entity: EntityType
    listed: int = 0
    new: int = 0
    changed: int = 0
    drifted: int = 0
    """With the same change time and other values."""
    missing: int = 0
    """Stored, and not in the source's list: deleted, once a second look has confirmed it."""
    unreadable: int = 0
    examples: list[str] = field(default_factory=list)


async def preview(core: Core, kind: Kind, entities: Sequence[EntityType]) -> list[Preview]:
    """Compare the source's lists with the tables. It makes calls, and counts none of them: nothing is written."""
    settings = settings_of(core)
    async with open_api(settings, today=Today(calls_left=settings.calls_per_day, seconds_left=3600)) as api:
        return [await _preview(core, api, kind, entity) for entity in entities]


async def _preview(core: Core, api: Api, kind: Kind, entity: EntityType) -> Preview:
    found = Preview(entity=entity)
    listing = LISTINGS[entity]
    since = None
    if kind is Kind.INCREMENTAL and listing.sort_column and not await migrate.pending(core.database):
        async with transaction(core.database) as tx:
            read_at, _ = await progress.cursor(tx, core.environment.name, entity)
        since = read_at - timedelta(seconds=settings_of(core).overlap_seconds) if read_at else None
    seen: set[str] = set()
    for number in range(1, PAGES_MAX):
        got = await page(api, listing, number, since)
        found.unreadable += len(got.faults)
        rows = {row.key: row for row in got.rows if row.key not in seen}
        if since is not None:
            rows = {key: row for key, row in rows.items() if row.stamp is None or row.stamp >= since}
        seen.update(rows)
        async with transaction(core.database) as tx:
            stored = await known.known(tx, entity, rows)
        needs = {
            key: stock_need(row, stored.get(key), None)
            if kind is Kind.STOCK
            else need(entity, row, stored.get(key), None)
            for key, row in rows.items()
        }
        counts = Counter(needs.values())
        found.new += counts[Need.NEW]
        found.changed += counts[Need.CHANGED]
        found.drifted += counts[Need.DRIFTED]
        _add_examples(found, {key: what for key, what in needs.items() if what is not Need.NOTHING})
        if got.is_last or (since is not None and got.is_older_than(since)):
            break
    found.listed = len(seen)
    if kind is Kind.FULL:
        await _count_missing(core, found, seen)
    return found


async def _count_missing(core: Core, found: Preview, seen: set[str]) -> None:
    after = ""
    while True:
        async with transaction(core.database) as tx:
            keys = await known.keys_after(tx, found.entity, after, _KEYS_AT_ONCE)
        if not keys:
            return
        missing = [key for key in keys if key not in seen]
        found.missing += len(missing)
        _add_examples(found, dict.fromkeys(missing, "missing"))
        after = keys[-1]


def _add_examples(found: Preview, keys: Mapping[str, str]) -> None:
    room = EXAMPLES_MAX - len(found.examples)
    found.examples += [f"{key} {what}" for key, what in list(keys.items())[: max(0, room)]]
