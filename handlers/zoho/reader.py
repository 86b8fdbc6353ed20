"""Reading records one by one: what a list tells of them is partial, or may be wrong. Makes events of what is new."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from handlers.entities.base import READ_AT
from handlers.entities.document import Refusal
from handlers.entities.incoming import Incoming, incoming
from handlers.entities.known import Known
from handlers.entities.registry import handler
from handlers.entities.spec import Data
from handlers.errors import RunbookError
from handlers.queue.event import EntityType, Operation
from handlers.zoho.api import Answer, Api, Unreadable
from handlers.zoho.listings import PLACE_KEYS, STOCK_KEYS, Listing
from handlers.zoho.pages import ListRow, stamp_of
from handlers.zoho.progress import Found
from handlers.zoho.stale import Need, difference, differing, part, row_differs


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A record that has to be read, why, and what is stored of it."""

    row: ListRow
    need: Need
    stored: Known | None
    is_stock: bool = False
    """Only its stock is taken."""


@dataclass(kw_only=True)
class Batch:
    """What came of reading some records."""

    records: list[Incoming] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    gone: list[ListRow] = field(default_factory=list)
    """They do not exist, although a list had them a moment ago, or we have them."""
    faults: list[str] = field(default_factory=list)
    read: int = 0
    stopped: Exception | None = None
    """Why the others were not read. What was read is kept."""


async def read_all(api: Api, listing: Listing, wanted: Sequence[Wanted], now: datetime) -> Batch:
    """Read *wanted*, several at once. *now* is the time of reading where the source does not say it."""
    batch = Batch()
    async with asyncio.TaskGroup() as group:
        for each in wanted:
            group.create_task(_read(api, listing, each, now, batch))
    return batch


async def _read(api: Api, listing: Listing, wanted: Wanted, now: datetime, batch: Batch) -> None:
    if batch.stopped is not None:
        return
    row = wanted.row
    try:
        answer = await api.get(f"{listing.path}/{row.key}")
    except Unreadable as error:
        batch.faults.append(f"{listing.entity} {row.key}: {error}")
        batch.found.append(Found(key=row.key, stamp=row.stamp))
        return
    except RunbookError as error:
        # The first one: the others find that their turn is over.
        batch.stopped = batch.stopped or error
        return
    batch.read += 1
    if answer is None:
        batch.gone.append(row)
        return
    try:
        record = _record(listing, row, answer)
        _take(listing.entity, wanted, record, (answer.at or now).isoformat(), batch)
    except Refusal as refusal:
        batch.faults.append(f"{listing.entity} {row.key}: {refusal}")
        batch.found.append(Found(key=row.key, stamp=row.stamp))


def _record(listing: Listing, row: ListRow, answer: Answer) -> Data:
    """The record in an answer. Raises Refusal where there is none, or another one."""
    declared = handler(listing.entity)
    record: Any = next((answer.body[name] for name in declared.wrappers if name in answer.body), None)
    if isinstance(record, list) and len(record) == 1:
        record = record[0]
    if not isinstance(record, dict):
        raise Refusal("(body)", f"the source's answer holds no {listing.entity}")
    key = declared.source_key(record)
    if key != row.key:
        raise Refusal(declared.id_keys[0], f"is {key} in the source's answer")
    return record | {
        name: row.data[name] for name in listing.from_row if name in row.data and name not in record
    }


def _take(entity: EntityType, wanted: Wanted, record: Data, at: str, batch: Batch) -> None:
    """Add to *batch* what is new in *record*: the whole, a part, or nothing."""
    row, stored = wanted.row, wanted.stored.data if wanted.stored is not None else None
    found = Found(key=row.key, stamp=row.stamp)
    if (
        wanted.need is Need.DRIFTED
        and stored is not None
        and (wanted.is_stock or not _is_newer(record, wanted.stored))
    ):
        keys = differing(entity, record, stored)
        if wanted.is_stock:
            keys = [key for key in keys if key in (*STOCK_KEYS, *PLACE_KEYS)]
        record = part(entity, record, keys, row.key, at) if keys else {}
    elif stamp_of(record) is None:
        if stored is not None and wanted.need is Need.CHANGED and not differing(entity, record, stored):
            record = {}
        else:
            record = record | {READ_AT: at}
    if record:
        batch.records.append(incoming(entity, record, Operation.UPSERT))
    elif stored is not None:
        # The list says it in another form than the record. Known the next time.
        keys = row_differs(entity, row, stored, is_stock=wanted.is_stock)
        found = Found(key=row.key, stamp=row.stamp, harmless=difference(keys, row.data, stored))
    batch.found.append(found)


def _is_newer(record: Data, stored: Known | None) -> bool:
    """Whether the record has changed since, which no list has said."""
    stamp = stamp_of(record)
    return stamp is not None and stored is not None and stored.stamp is not None and stamp > stored.stamp


def deletion(entity: EntityType, key: str) -> Incoming:
    """The event of a record that the source does not have any more."""
    return incoming(entity, {handler(entity).id_keys[0]: key}, Operation.DELETE)
