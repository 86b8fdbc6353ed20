"""The eleven kinds of record: what a payload says, as rows of the ERP. Knows nothing of releases.

`unwrap` takes records out of a body, `source_key` names one, `apply` writes a batch of events inside the
caller's transaction, and `differences` proves afterwards that a row says what its payload says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.entities import compare, envelope
from handlers.entities.applying import Handlers, apply_kind
from handlers.entities.base import Handler
from handlers.entities.catalog import PRICE_LIST, PRODUCT, STOCK_ADJUSTMENT
from handlers.entities.document import Refusal
from handlers.entities.envelope import Record
from handlers.entities.parties import CUSTOMER, USER, VENDOR
from handlers.entities.payments import PAYMENT
from handlers.entities.settle import Ids
from handlers.entities.spec import Data
from handlers.entities.trade import BILL, CREDIT_NOTE, INVOICE, SALES_ORDER
from handlers.queue.event import DRAIN_ORDER, EntityType, Event, Result

HANDLERS: Handlers = MappingProxyType(
    {
        one.entity: one
        for one in (
            PRODUCT,
            CUSTOMER,
            INVOICE,
            SALES_ORDER,
            PAYMENT,
            VENDOR,
            USER,
            BILL,
            CREDIT_NOTE,
            STOCK_ADJUSTMENT,
            PRICE_LIST,
        )
    }
)
"""One handler for each kind. An ERP that needs another rule builds its own dictionary from this one."""


def handler(entity: EntityType) -> Handler:
    """The handler of a kind of record."""
    return HANDLERS[entity]


def unwrap(entity: EntityType, body: str) -> list[Record]:
    """All records of this kind in *body*, whatever it wraps them in. Raises Refusal where there is none."""
    return envelope.records(HANDLERS[entity], body)


def unwrap_each(entity: EntityType, body: str) -> list[Record | Refusal]:
    """Like `unwrap`, but what is wrong with one element of a list stands in its place among the others."""
    return envelope.each(HANDLERS[entity], body)


def source_key(entity: EntityType, record: Data) -> str:
    """The record's id at the source, as text. Raises Refusal where it has none."""
    return HANDLERS[entity].source_key(record)


async def apply(
    tx: AsyncConnection, events: Sequence[Event], *, handlers: Handlers = HANDLERS
) -> dict[UUID, Result]:
    """Apply a batch inside the caller's transaction, parents before children; one result for each event.

    What the mapping refuses costs nothing to the others. What only the database refuses is raised, as RowsRefused with
    the records it refuses where that could be found out: the caller rolls back, and tries again without them.
    """
    by_kind: dict[EntityType, list[Event]] = defaultdict(list)
    for event in events:
        by_kind[event.entity].append(event)
    ids: Ids = {}
    results: dict[UUID, Result] = {}
    for entity in DRAIN_ORDER:
        if entity in by_kind:
            alone = len(events) == 1
            results |= await apply_kind(tx, handlers[entity], by_kind[entity], ids, handlers, alone=alone)
    return results


def expected(entity: EntityType, payload: str) -> dict[str, Any]:
    """What the row of the one record in *payload* must hold, as the mapping says: values by column, as
    text."""
    (record,) = unwrap(entity, payload)
    return compare.expected(HANDLERS[entity], record.data)


async def differences(
    tx: AsyncConnection,
    entity: EntityType,
    key: str,
    payload: str,
    *,
    read_at: datetime | None = None,
    by_us: bool = True,
) -> list[str]:
    """Where the stored row of *key* says something else than *payload*, each as a sentence; none if it
    agrees.

    Only columns that the ERP's table has are compared, values as values; a row with a newer stamp agrees.
    *read_at* is when the event was made: the stamp of records that carry none. A row of another worker than ours
    (*by_us*) may hold defaults of its own where the payload says nothing.
    """
    return await compare.differences(tx, HANDLERS[entity], key, payload, read_at=read_at, by_us=by_us)


async def uncomparable(tx: AsyncConnection, entity: EntityType, key: str, payload: str) -> str | None:
    """Why the row that a worker of the ERP's own wrote cannot be held against *payload*; None when it can."""
    return await compare.uncomparable(tx, HANDLERS[entity], key, payload)
