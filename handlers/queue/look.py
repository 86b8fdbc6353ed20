"""Read-only queries of the queue: states of events, dead letters, outcomes of live traffic."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.queue import in_hand, limits
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import ENTITY_TYPES, QUEUE_NAMES, EntityType, Status

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


@dataclass(frozen=True, kw_only=True)
class OutcomeCount:
    """Outcomes of the records of one type that changed in a window; each record counts once."""

    entity: EntityType | None
    raw_type: str
    completed: int
    failed: int
    open: int
    """Not settled, and younger than the limit for late events."""
    late: int
    """Not settled and too old: a worker is stalled, or the event is retried again and again."""
    known: int
    """Of the failed ones, those with an error that events of this type had before."""
    held: int
    """Of the open ones, those that a limit holds."""
    held_by: str
    """Who set that limit; empty without one."""
    error_samples: tuple[str, ...]
    """Distinct errors of the failed records, digits masked; at most fifty."""
    error_kinds: tuple[str, ...]
    """The codes, and the beginnings of the texts, of the errors of all events, of those in retry too."""

    @classmethod
    def from_row(cls, row: RowMapping, held_by: str) -> Self:
        values = dict(row) | {name: tuple(row[name]) for name in ("error_samples", "error_kinds")}
        return cls(**values, held_by=held_by, entity=ENTITY_TYPES.get(row["raw_type"]))


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
    """All dead letters, oldest first."""
    rows = await tx.execute(_SQL["dead_letters"])
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


class KnownError(NamedTuple):
    """An error that events of a type died of before, with its values masked."""

    type: str
    error: str


async def known_errors(
    tx: AsyncConnection, *, before: datetime, former: Iterable[tuple[EntityType, str]] = ()
) -> tuple[KnownError, ...]:
    """What events died of in the day before *before*, and *former* errors, which a redrive has wiped."""
    pairs = [(QUEUE_NAMES[entity], error) for entity, error in former]
    values = {
        "before": before,
        "types": [name for name, _ in pairs],
        "errors": [error for _, error in pairs],
    }
    return tuple(KnownError(*row) for row in await tx.execute(_SQL["known_errors"], values))


async def outcomes_since(
    tx: AsyncConnection,
    *,
    since: datetime,
    arrived_since: datetime | None = None,
    excluding: Sequence[UUID] = (),
    late_seconds: float,
    known: Sequence[KnownError] = (),
) -> list[OutcomeCount]:
    """Outcomes of live traffic since *since*, for each entity type. *excluding* are the replayed events.

    With *arrived_since* also of events that came before *since*, if no worker took them before. An event that waits for
    a parent is late after three times as long. The time for which a limit of the queue held an event does not make it
    late.
    """
    holds = await limits.holds(tx)
    values = {
        "since": since,
        "arrived_since": arrived_since or since,
        "excluding": list(excluding),
        "late_seconds": late_seconds,
        "known_types": [error.type for error in known],
        "known_errors": [error.error for error in known],
        "held_types": list(holds.until),
        "held_until": list(holds.until.values()),
    }
    rows = await tx.execute(_SQL["outcomes_since"], values)
    return [
        OutcomeCount.from_row(row, held_by=holds.holder([row["raw_type"]]) if row["held"] else "")
        for row in rows.mappings()
    ]


def _object(text: str | None) -> dict[str, Any] | None:
    """A JSON object, or None: the ERP's own workers may have stored another type of value."""
    value = json.loads(text) if text is not None else None
    return value if isinstance(value, dict) else None
