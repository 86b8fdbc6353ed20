"""Looking at the queue without changing it: where events stand, what is dead, how live traffic fares."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import ENTITY_TYPES, EntityType, Status

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class EventState:
    """Where one event stands."""

    id: UUID
    entity: EntityType | None
    """None for a kind of record that nobody handles; *raw_type* says which."""
    raw_type: str
    key: str
    status: Status
    attempt_count: int
    error_code: str | None
    error_message: str | None
    started_at: datetime | None
    completed_at: datetime | None
    processing_result: dict[str, Any] | None
    """What the worker wrote about its last attempt: outcome or error class, worker, revision, reason."""

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
    """An event that was given up, with what is needed to choose among them."""

    id: UUID
    entity: EntityType | None
    """None for a kind of record that nobody handles; *raw_type* says which."""
    raw_type: str
    key: str
    created_at: datetime
    attempts: int
    error_code: str | None
    error_message: str | None
    fingerprint: str
    """The error with ids, numbers and quoted values masked; empty when none was recorded."""

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        return cls(
            **row,
            entity=ENTITY_TYPES.get(row["raw_type"]),
            fingerprint=fingerprint(row["error_message"] or ""),
        )


@dataclass(frozen=True, kw_only=True)
class OutcomeCount:
    """What became of the records of one kind that changed in a window; each record counts once."""

    entity: EntityType | None
    raw_type: str
    completed: int
    failed: int
    open: int
    """Unfinished, and not old enough to worry."""
    late: int
    """Unfinished and too old: a worker has stalled, or a retry drags on."""
    error_samples: tuple[str, ...]
    """Different errors of the failed ones, digits masked; at most fifty."""

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        values = dict(row) | {"error_samples": tuple(row["error_samples"])}
        return cls(**values, entity=ENTITY_TYPES.get(row["raw_type"]))


async def states(tx: AsyncConnection, ids: Sequence[UUID]) -> list[EventState]:
    """Where the events *ids* stand, oldest first; an id that is not in the queue is missing in the answer."""
    rows = await tx.execute(_SQL["states"], {"ids": list(ids)})
    return [EventState.from_row(row) for row in rows.mappings()]


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What an event carries."""

    payload: str
    """JSON text."""
    created_at: datetime


async def payloads(tx: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Carried]:
    """What the events *ids* carry."""
    rows = await tx.execute(_SQL["payloads"], {"ids": list(ids)})
    return {row.id: Carried(payload=row.payload, created_at=row.created_at) for row in rows}


async def dead_letters(tx: AsyncConnection) -> list[DeadLetter]:
    """All dead letters, oldest first."""
    rows = await tx.execute(_SQL["dead_letters"])
    return [DeadLetter.from_row(row) for row in rows.mappings()]


async def counts(tx: AsyncConnection) -> dict[Status, int]:
    """How many events stand in each status; every status is named, also with none."""
    rows = await tx.execute(_SQL["counts"])
    return dict.fromkeys(Status, 0) | {Status(row.status): row.events for row in rows}


async def outcomes_since(
    tx: AsyncConnection, *, since: datetime, excluding: Sequence[UUID] = (), late_seconds: float
) -> list[OutcomeCount]:
    """Live traffic since *since*: a count for each kind of record. *excluding* are the replayed events."""
    rows = await tx.execute(
        _SQL["outcomes_since"], {"since": since, "excluding": list(excluding), "late_seconds": late_seconds}
    )
    return [OutcomeCount.from_row(row) for row in rows.mappings()]


def _object(text: str | None) -> dict[str, Any] | None:
    """A JSON object, or None: the ERP's own workers may have left another kind of value."""
    value = json.loads(text) if text is not None else None
    return value if isinstance(value, dict) else None
