"""New work for the queue: how an event stands in the ERP's inbox and queue, from a receiver or from ourselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.queue.event import QUEUE_NAMES, EntityType, Operation
from handlers.queue.redrive import CHANNEL

_SQL = queries(__name__)


class NewEvent(NamedTuple):
    """One event to write. A named tuple, because receivers make thousands."""

    id: UUID
    entity: EntityType
    key: str
    operation: Operation
    payload: str
    """JSON text."""
    content: str
    """The hash by which a duplicate is known."""
    source: str
    headers: str
    """JSON text."""
    address: str | None = None
    verified: bool = False
    stamped: bool = False
    """Whether the payload says when it was changed: then it equals any earlier event with the same content."""
    deduplicated: bool = False
    """Whether it is written only if it says something new; else in any case."""


async def insert_new(tx: AsyncConnection, events: Sequence[NewEvent]) -> set[UUID]:
    """Write *events* in their order, except duplicates, and wake the workers. Returns the ids that were written."""
    rows = await tx.execute(
        _SQL["insert_new"],
        {
            "ids": [event.id for event in events],
            "inbox_ids": [uuid4() for _ in events],
            "sources": [event.source for event in events],
            "entities": [QUEUE_NAMES[event.entity] for event in events],
            "keys": [event.key for event in events],
            "operations": [event.operation.value for event in events],
            "payloads": [event.payload for event in events],
            "contents": [event.content for event in events],
            "headers": [event.headers for event in events],
            "addresses": [event.address for event in events],
            "verified": [event.verified for event in events],
            "stamped": [event.stamped for event in events],
            "deduplicated": [event.deduplicated for event in events],
            "channel": CHANNEL,
        },
    )
    return {row.id for row in rows}


async def insert_event(
    tx: AsyncConnection,
    *,
    entity: EntityType,
    key: str,
    payload_text: str,
    operation: Operation = Operation.UPDATE,
    source: str = "manual",
    headers: Mapping[str, Any] | None = None,
) -> UUID:
    """Write one event of our own as a receiver does, whatever was there before. *headers* mark it."""
    event = NewEvent(
        id=uuid4(),
        entity=entity,
        key=key,
        operation=operation,
        payload=payload_text,
        content=hashlib.sha256(payload_text.encode()).hexdigest(),
        source=source,
        headers=json.dumps(dict(headers or {})),
    )
    await insert_new(tx, [event])
    return event.id
