"""What puts work into the queue: a webhook, a dead letter sent back, and the call that wakes the workers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self
from uuid import UUID, uuid4

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.queue.event import QUEUE_NAMES, EntityType, Operation

CHANNEL = "tds_sync_queue"
"""The channel on which a transaction that adds work wakes the workers."""

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class BeforeRedrive:
    """All that a redrive wipes from a dead letter, as JSON can hold it, so that `restore` can put it back."""

    id: str
    attempt_count: int
    error_message: str | None
    error_code: str | None
    locked_by: str | None
    lock_expires_at: str | None
    next_retry_at: str | None
    started_at: str | None
    completed_at: str | None
    target_entity_id: str | None
    processing_result: str | None

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        return cls(**dict(row) | {"id": str(row["id"])})


async def redrive(tx: AsyncConnection, ids: Sequence[UUID]) -> list[BeforeRedrive]:
    """Send the dead letters among *ids*, and nothing else, back to pending; wakes the workers.

    Returns all former values of those that were really dead letters.
    """
    rows = await tx.execute(_SQL["redrive"], {"ids": list(ids)})
    formers = [BeforeRedrive.from_row(row) for row in rows.mappings()]
    if formers:
        await notify(tx)
    return formers


async def restore(
    tx: AsyncConnection, formers: Sequence[BeforeRedrive], *, even_leased: bool = False
) -> list[UUID]:
    """Put redriven events that have not come to rest back as the dead letters they were.

    *even_leased* is for whoever knows that no worker runs any more: a lease then binds nobody.
    Returns those that were put back. One that is missing has come to rest, or a worker holds it.
    """
    columns = {
        f"{field.name}s": [getattr(each, field.name) for each in formers] for field in fields(BeforeRedrive)
    }
    columns["ids"] = [UUID(each.id) for each in formers]
    rows = await tx.execute(_SQL["restore"], columns | {"even_leased": even_leased})
    put_back = {row.id for row in rows}
    return [id_ for id_ in columns["ids"] if id_ in put_back]


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
    """Write one event as a receiver does, inbox row and queue row; wakes the workers. *headers* mark it."""
    id_ = uuid4()
    await tx.execute(
        _SQL["insert_event"],
        {
            "id": id_,
            "inbox_id": uuid4(),
            "source": source,
            "entity": QUEUE_NAMES[entity],
            "key": key,
            "payload": payload_text,
            "idempotency_key": f"{source}:{QUEUE_NAMES[entity]}:{key}:{id_}",
            "content_hash": hashlib.sha256(payload_text.encode()).hexdigest(),
            "headers": json.dumps(dict(headers or {})),
            "operation": operation.value,
        },
    )
    await notify(tx)
    return id_


async def notify(tx: AsyncConnection) -> None:
    """Wake the listening workers when this transaction commits."""
    await tx.execute(_SQL["notify"])
