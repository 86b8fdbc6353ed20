"""Which records the payloads of events need, and which of them the ERP does not have."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.sqlstate import sqlstate
from handlers.entities.apply import look_up
from handlers.entities.base import Handlers
from handlers.entities.document import Refusal
from handlers.entities.registry import HANDLERS
from handlers.entities.resolve import Ids, map_event, missing_parents
from handlers.entities.spec import Mapped
from handlers.queue.event import EntityType, Event, Operation

log = logging.getLogger(__name__)


class Payload(NamedTuple):
    """The payload of one event of a record."""

    id: UUID
    entity: EntityType
    key: str
    text: str
    created_at: datetime


async def absent_parents(
    tx: AsyncConnection, payloads: Iterable[Payload], *, handlers: Handlers = HANDLERS
) -> dict[UUID, frozenset[tuple[EntityType, str]]]:
    """The records, by type and source id, that each event would wait for. A payload that is refused needs none.

    Where the ERP's tables cannot be read, every parent counts as absent.
    """
    mapped = {payload.id: found for payload in payloads if (found := _mapped(payload, handlers)) is not None}
    ids: Ids = {parent.entity: {} for record in mapped.values() for parent in record.parents}
    try:
        # A savepoint, so that a table that cannot be read does not end the transaction.
        async with tx.begin_nested():
            await look_up(tx, mapped.values(), ids, handlers)
    except DBAPIError as error:
        log.warning("the ERP's tables cannot be read (%s): parents are redriven first", sqlstate(error))
    return {
        id_: frozenset((parent.entity, parent.key) for parent in missing_parents(record, ids))
        for id_, record in mapped.items()
    }


def _mapped(payload: Payload, handlers: Handlers) -> Mapped | None:
    event = Event(
        id=payload.id,
        entity=payload.entity,
        key=payload.key,
        operation=Operation.UPSERT,
        payload=payload.text,
        attempt=1,
        attempts_max=1,
        created_at=payload.created_at,
    )
    try:
        return map_event(handlers[payload.entity], event).mapped
    except Refusal:
        return None
    except Exception:  # one bad payload must not stop the drain of the others
        log.debug("the parents of event %s are unknown", payload.id, exc_info=True)
        return None
