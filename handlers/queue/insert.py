"""New work for the queue: how an event stands in the ERP's inbox and queue, from a receiver or from ourselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.queue.event import QUEUE_NAMES, EntityType, Operation
from handlers.queue.redrive import CHANNEL

PRIORITY = 5
"""What the ERP's own receivers write."""

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
    headers: str
    """JSON text."""
    address: str | None = None
    verified: bool = False
    stamped: bool = False
    """Whether the payload says when it was changed: then it equals any earlier event with the same content."""
    deduplicated: bool = False
    """Whether it is written only if it says something new; else in any case."""


async def lock_records(tx: AsyncConnection, records: Iterable[tuple[EntityType, str]]) -> None:
    """Lock these records until the transaction ends, against others who may insert the same."""
    await tx.execute(_SQL["lock_records"], {"names": [f"{entity}:{key}" for entity, key in records]})


async def insert_new(
    tx: AsyncConnection,
    events: Sequence[NewEvent],
    *,
    source: str,
    priority: int = PRIORITY,
    once: bool = False,
) -> set[UUID]:
    """Insert *events* in their order, except duplicates, and wake the workers. Returns the inserted ids.

    Of *priority* 1 comes before 10. With *once*, a dead letter of the same *source* counts as a duplicate too.
    """
    if not events:
        return set()
    (
        ids,
        entities,
        keys,
        operations,
        payloads,
        contents,
        headers,
        addresses,
        verified,
        stamped,
        deduplicated,
    ) = zip(*events, strict=True)
    rows = await tx.execute(
        _SQL["insert_new"],
        {
            "ids": ids,
            "inbox_ids": [uuid4() for _ in events],
            "source": source,
            "entities": [QUEUE_NAMES[entity] for entity in entities],
            "keys": keys,
            "operations": [operation.value for operation in operations],
            "payloads": payloads,
            "contents": contents,
            "headers": headers,
            "addresses": addresses,
            "verified": verified,
            "stamped": stamped,
            "deduplicated": deduplicated,
            "channel": CHANNEL,
            "priority": priority,
            "once": once,
        },
    )
    return set(rows.scalars())


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
        headers=json.dumps(dict(headers or {})),
    )
    await insert_new(tx, [event], source=source)
    return event.id
