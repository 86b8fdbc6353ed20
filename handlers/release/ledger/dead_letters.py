"""The dead letters of a release: planned, redriven in batches, then settled or restored."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import as_json, clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import Refused
from handlers.gate.values import Finding
from handlers.release import lock
from handlers.release.phase import Release

SQL = queries(__name__)

_GOOD = "completed"
_BAD = frozenset({"failed", "dead_letter"})


class Restorable(Protocol):
    """The previous values of a redriven event: a dataclass that can be stored, to restore the event later."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def id(self) -> UUID | str:
        """The event."""
        ...


class State(Protocol):
    """The state of an event in the queue."""

    @property
    def id(self) -> UUID:
        """The event."""
        ...

    @property
    def status(self) -> str:
        """The queue's status."""
        ...

    @property
    def error_message(self) -> str | None:
        """The error text, if any."""
        ...


@dataclass(frozen=True, kw_only=True)
class ReleaseEvent:
    """One dead letter that a release may redrive. *former* has its values from before the redrive."""

    event_id: UUID
    position: int
    entity_type: str
    source_entity_id: str
    batch: int | None
    former: dict[str, Any]
    redriven_at: datetime | None
    settled_at: datetime | None
    status: str | None
    error: str | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> ReleaseEvent:
        """From the queries that list events."""
        return cls(**{**row._mapping, "former": json.loads(row.former)})


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch; number 0 is the canary."""

    number: int
    size: int
    started_at: datetime
    settled_at: datetime | None
    completed: int | None
    failed: int | None
    open: int | None
    finding: Finding | None
    sentence: str

    @classmethod
    def from_row(cls, row: Row[Any]) -> Batch:
        """From the queries about batches."""
        return cls(**{**row._mapping, "finding": Finding(row.finding) if row.finding else None})


async def plan_events(bind: Bind, release: Release, events: Iterable[tuple[int, UUID, str, str]]) -> None:
    """Record the dead letters that may be redriven, as tuples of position, event id, entity type and source key."""
    planned = list(events)
    async with transaction(bind) as tx:
        await tx.execute(
            SQL["plan_events"],
            {
                "release_id": release.id,
                "positions": [position for position, _, _, _ in planned],
                "event_ids": [event_id for _, event_id, _, _ in planned],
                "entity_types": [entity for _, _, entity, _ in planned],
                "source_entity_ids": [clean(key) for _, _, _, key in planned],
            },
        )


async def undrained(bind: Bind, release: Release, limit: int | None = None) -> list[ReleaseEvent]:
    """Planned events that have not been redriven, in the planned order."""
    return await _events(bind, "undrained", {"release_id": release.id, "limit": limit})


async def unsettled(bind: Bind, release: Release) -> list[ReleaseEvent]:
    """Redriven events that have not settled, with their previous values."""
    return await _events(bind, "unsettled", {"release_id": release.id})


async def events(bind: Bind, release: Release) -> list[ReleaseEvent]:
    """Every planned event with its outcome."""
    return await _events(bind, "events", {"release_id": release.id})


async def record_batch(
    tx: AsyncConnection, release: Release, number: int, previous_values: Sequence[Restorable]
) -> Batch:
    """Record redriven events as batch *number*, with their previous values.

    Call it in the transaction that redrives them. Raises LockLost without the lock, and Refused when an event is not
    planned or redriven already.
    """
    await lock.fence(tx, release.environment, release.token)
    size = len(previous_values)
    batch = (
        await tx.execute(SQL["open_batch"], {"release_id": release.id, "number": number, "size": size})
    ).one()
    marked = await tx.execute(
        SQL["mark_redriven"],
        {
            "release_id": release.id,
            "number": number,
            "event_ids": [UUID(str(values.id)) for values in previous_values],
            "formers": [as_json(dataclasses.asdict(values)) for values in previous_values],
        },
    )
    if marked.rowcount != size:
        raise Refused(
            f"batch {number} of release {release.id} has {size} events, but only {marked.rowcount} of them "
            "are planned and not yet redriven: run `runbook plan` again"
        )
    return Batch.from_row(batch)


async def settle_batch(
    bind: Bind,
    release: Release,
    number: int,
    *,
    states: Sequence[State],
    finding: Finding,
    sentence: str,
) -> Batch:
    """Record the end of a batch: its counts, its finding, and the outcome of each settled event.

    Events that are still open stay unsettled, so that a rollback can restore them. Raises LockLost without the lock.
    """
    settled = [state for state in states if state.status == _GOOD or state.status in _BAD]
    completed = sum(state.status == _GOOD for state in settled)
    async with transaction(bind) as tx:
        await lock.fence(tx, release.environment, release.token)
        await tx.execute(
            SQL["mark_settled"],
            {
                "release_id": release.id,
                "number": number,
                "event_ids": [state.id for state in settled],
                "statuses": [str(state.status) for state in settled],
                "errors": [clean(state.error_message) if state.error_message else None for state in settled],
            },
        )
        batch = await tx.execute(
            SQL["settle_batch"],
            {
                "release_id": release.id,
                "number": number,
                "completed": completed,
                "failed": len(settled) - completed,
                "open": len(states) - len(settled),
                "finding": finding,
                "sentence": clean(sentence),
            },
        )
        return Batch.from_row(batch.one())


async def mark_returned(tx: AsyncConnection, release: Release, event_ids: Sequence[UUID]) -> int:
    """Record that these events were restored to dead letters, and so are not drained. Returns their number.

    Call it in the transaction that restores them. Raises LockLost without the lock.
    """
    await lock.fence(tx, release.environment, release.token)
    marked = await tx.execute(SQL["mark_returned"], {"release_id": release.id, "event_ids": list(event_ids)})
    return marked.rowcount


async def batches(bind: Bind, release: Release) -> list[Batch]:
    """The release's batches in order."""
    async with transaction(bind) as tx:
        return [Batch.from_row(row) for row in await tx.execute(SQL["batches"], {"release_id": release.id})]


async def _events(bind: Bind, query: str, values: dict[str, object]) -> list[ReleaseEvent]:
    async with transaction(bind) as tx:
        return [ReleaseEvent.from_row(row) for row in await tx.execute(SQL[query], values)]
