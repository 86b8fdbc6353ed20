"""Read-only queries of the queue: states of events, dead letters, outcomes of live traffic."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.queue import in_hand
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import ENTITY_TYPES, SYNTHETIC_KEY, EntityType, Status

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class EventState:
    """The state of one event."""

    id: UUID
    entity: EntityType | None
    """None for a type without a handler; *raw_type* has its name."""
    raw_type: str
    key: str
    status: Status
    attempt_count: int
    error_code: str | None
    error_message: str | None
    started_at: datetime | None
    completed_at: datetime | None
    processing_result: dict[str, Any] | None
    """What the worker stored about its last attempt: outcome or error class, worker, revision, reason."""

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        values = dict(row)
        result = values.pop("processing_result")
        return cls(
            **values | {"status": Status(row["status"])},
            entity=ENTITY_TYPES.get(row["raw_type"]),
            processing_result=_object(result),
        )


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One dead letter, with the fields by which a plan chooses and groups."""

    id: UUID
    entity: EntityType | None
    """None for a type without a handler; *raw_type* has its name."""
    raw_type: str
    key: str
    created_at: datetime
    attempts: int
    error_code: str | None
    error_message: str | None
    fingerprint: str
    """The error text with ids, numbers and quoted values masked; empty without an error."""

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        return cls(
            **row,
            entity=ENTITY_TYPES.get(row["raw_type"]),
            fingerprint=fingerprint(row["error_message"] or ""),
        )


async def states(tx: AsyncConnection, ids: Sequence[UUID]) -> list[EventState]:
    """The states of the events *ids*, oldest first; an id that is not in the queue is left out.

    What a worker has in hand without a lease is in processing too.
    """
    held = await in_hand.among(tx, ids)
    rows = await tx.execute(_SQL["states"], {"ids": list(ids)})
    found = [EventState.from_row(row) for row in rows.mappings()]
    return [
        replace(state, status=Status.PROCESSING)
        if state.id in held and state.status in (Status.PENDING, Status.RETRY)
        else state
        for state in found
    ]


@dataclass(frozen=True, kw_only=True)
class StoredPayload:
    """The payload of one event."""

    payload: str
    """JSON text."""
    created_at: datetime


async def payloads(tx: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, StoredPayload]:
    """The payloads of the events *ids*, by id."""
    rows = await tx.execute(_SQL["payloads"], {"ids": list(ids)})
    return {row.id: StoredPayload(payload=row.payload, created_at=row.created_at) for row in rows}


async def dead_letters(tx: AsyncConnection) -> list[DeadLetter]:
    """All dead letters, oldest first. A release's own test events are no letters."""
    rows = await tx.execute(_SQL["dead_letters"], {"synthetic": SYNTHETIC_KEY})
    return [DeadLetter.from_row(row) for row in rows.mappings()]


async def counts(tx: AsyncConnection) -> dict[Status, int]:
    """The number of events in each status; every status has a key, also with 0 events."""
    held = await in_hand.counts(tx)
    rows = await tx.execute(_SQL["counts"])
    found = dict.fromkeys(Status, 0) | {Status(row.status): row.events for row in rows}
    for status, number in held.items():
        # Some of them may have been settled meanwhile.
        moved = min(number, found[status])
        found[status] -= moved
        found[Status.PROCESSING] += moved
    return found


@dataclass(frozen=True, kw_only=True)
class TypeCount:
    """How many events of one type stand in one status."""

    entity: str
    """The readable name of the type; the queue's own where it has no handler."""
    status: Status
    events: int


async def counts_by_type(tx: AsyncConnection) -> list[TypeCount]:
    """The number of events by type and status, without the completed ones; a pair without events is left out."""
    held = await in_hand.counts_by_type(tx)
    rows = await tx.execute(_SQL["counts_by_type"])
    found = Counter({(row.raw_type, Status(row.status)): row.events for row in rows})
    for (raw_type, status), number in held.items():
        moved = min(number, found[raw_type, status])
        found[raw_type, status] -= moved
        found[raw_type, Status.PROCESSING] += moved
    return [
        TypeCount(entity=str(ENTITY_TYPES.get(raw_type, raw_type)), status=status, events=events)
        for (raw_type, status), events in sorted(found.items())
        if events
    ]


def _object(text: str | None) -> dict[str, Any] | None:
    """A JSON object, or None: the ERP's own workers may have stored another type of value."""
    value = json.loads(text) if text is not None else None
    return value if isinstance(value, dict) else None
