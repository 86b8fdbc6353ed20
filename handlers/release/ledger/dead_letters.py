"""The dead letters of a release: planned exactly, redriven in batches, settled or returned."""

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
    """What an event was before it was redriven: a dataclass that can be stored and put back."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def id(self) -> UUID | str:
        """The event."""
        ...


class State(Protocol):
    """Where an event stands in the queue."""

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
        """The error text, where there is one."""
        ...


@dataclass(frozen=True, kw_only=True)
class ReleaseEvent:
    """One dead letter that a release may touch."""

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
    """Write down which dead letters may be touched: (position, event, entity type, source key) each."""
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
    """Redriven events that have not come to rest, with what they were before."""
    return await _events(bind, "unsettled", {"release_id": release.id})


async def events(bind: Bind, release: Release) -> list[ReleaseEvent]:
    """Every planned event and what became of it."""
    return await _events(bind, "events", {"release_id": release.id})


async def record_batch(
    tx: AsyncConnection, release: Release, number: int, formers: Sequence[Restorable]
) -> Batch:
    """In the transaction that redrives them: these events are batch *number*, and this is what they were."""
    await lock.fence(tx, release.environment, release.token)
    opened = (
        await tx.execute(
            SQL["open_batch"], {"release_id": release.id, "number": number, "size": len(formers)}
        )
    ).one()
    marked = await tx.execute(
        SQL["mark_redriven"],
        {
            "release_id": release.id,
            "number": number,
            "event_ids": [UUID(str(former.id)) for former in formers],
            "formers": [as_json(dataclasses.asdict(former)) for former in formers],
        },
    )
    if marked.rowcount != len(formers):
        raise Refused(
            f"batch {number} of release {release.id} holds {len(formers)} events, but only {marked.rowcount} "
            "of them are planned and not yet redriven: make a new plan"
        )
    return Batch.from_row(opened)


async def settle_batch(
    bind: Bind,
    release: Release,
    number: int,
    *,
    states: Sequence[State],
    finding: Finding,
    sentence: str,
) -> Batch:
    """A batch has come to rest, or its time is over: the sum, the finding, and each event's own end.

    Events that are still open stay unsettled, so that they can be put back.
    """
    rested = [state for state in states if state.status == _GOOD or state.status in _BAD]
    completed = sum(state.status == _GOOD for state in rested)
    async with transaction(bind) as tx:
        await lock.fence(tx, release.environment, release.token)
        await tx.execute(
            SQL["mark_settled"],
            {
                "release_id": release.id,
                "number": number,
                "event_ids": [state.id for state in rested],
                "statuses": [str(state.status) for state in rested],
                "errors": [clean(state.error_message) if state.error_message else None for state in rested],
            },
        )
        settled = await tx.execute(
            SQL["settle_batch"],
            {
                "release_id": release.id,
                "number": number,
                "completed": completed,
                "failed": len(rested) - completed,
                "open": len(states) - len(rested),
                "finding": finding,
                "sentence": clean(sentence),
            },
        )
        return Batch.from_row(settled.one())


async def mark_returned(tx: AsyncConnection, release: Release, event_ids: Sequence[UUID]) -> int:
    """In the transaction that puts them back: these events are dead letters as before, and not drained."""
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
