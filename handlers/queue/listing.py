"""Looking at the queue by hand: which events there are, how many of each status, and what failed last. Reads only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.database.sqlstate import sqlstate
from handlers.errors import Refused
from handlers.queue import in_hand
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import ENTITY_TYPES, QUEUE_NAMES, SYNTHETIC_KEY, EntityType, Status

SECONDS_MAX = 15.0
"""How long a look by hand may take. A filter that no index helps reads the whole queue."""
FAILED_MAX = 20_000
"""So many failed events are grouped by their error, the newest ones: a look costs the same, however many there are."""
FAILED = (Status.DEAD_LETTER, Status.FAILED, Status.RETRY)
"""The statuses of an event whose last attempt failed."""
_QUERY_CANCELED = "57014"
_MASKED = re.compile(r"<(?:n|id|value|row)>")
_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class ListedEvent:
    """One event of a list. Its error is masked: values of payloads are no business of a list."""

    id: UUID
    """Its id in the queue."""
    entity: str
    """The readable name of its type; the queue's own where it has no handler."""
    key: str
    """The record's id at the source."""
    status: Status
    """Where it is in the queue."""
    attempts: int
    """Attempts so far."""
    created_at: datetime
    """When it was queued."""
    started_at: datetime | None
    """When a worker took it last."""
    completed_at: datetime | None
    """When it ended."""
    error_code: str | None
    """The last error's code."""
    error: str
    """With ids, numbers and quoted values masked; empty without one."""

    @property
    def at(self) -> datetime:
        """When it was last tried; when it came, if it never was."""
        return max(self.created_at, self.started_at or self.created_at)

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        values = {
            name: value for name, value in row.items() if name not in ("raw_type", "status", "error_message")
        }
        return cls(
            **values,
            entity=ENTITY_TYPES.get(row["raw_type"], row["raw_type"]),
            status=Status(row["status"]),
            error=fingerprint(row["error_message"] or ""),
        )


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which events are wanted; what is empty does not matter."""

    statuses: tuple[Status, ...] = ()
    entities: tuple[EntityType, ...] = ()
    error: str = ""
    """An error's code, or a part of its text; a mask as in a list stands for any text."""
    key: str = ""
    """The record's id at the source."""
    since: datetime | None = None
    """Only what came or was taken since then."""


@dataclass(frozen=True, kw_only=True)
class ErrorGroup:
    """Dead letters of one type with equal errors."""

    entity: str
    """The type's name."""
    error_code: str
    """The errors' code."""
    error: str
    """The error, masked."""
    count: int
    """How many there are."""


@asynccontextmanager
async def limited(tx: AsyncConnection, seconds: float = SECONDS_MAX) -> AsyncIterator[None]:
    """Let the queries within run at most *seconds* each. Raises Refused when one takes longer."""
    await tx.execute(_SQL["limit_time"], {"milliseconds": str(int(1000 * seconds))})
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) != _QUERY_CANCELED:
            raise
        raise Refused(
            f"the queue gave no answer within {seconds:g} s: ask for less with --since, --status, --entity or --key"
        ) from error


async def counts_since(tx: AsyncConnection, since: datetime) -> dict[Status, int]:
    """The number of events in each status, of those that came or were taken since then. Every status has a key."""
    rows = await tx.execute(_SQL["counts_since"], {"since": since, "synthetic": SYNTHETIC_KEY})
    return dict.fromkeys(Status, 0) | {Status(row.status): row.events for row in rows}


async def find(tx: AsyncConnection, wanted: Filter, limit: int) -> list[ListedEvent]:
    """The newest *limit* events that match, newest first. What a worker has in hand is in processing."""
    types = await _types(tx, wanted.entities)
    if types is not None and not types:
        return []
    busy = await in_hand.all_ids(tx)
    values = {
        "since": wanted.since,
        "statuses": [str(status) for status in wanted.statuses] or None,
        "also": list(busy) if Status.PROCESSING in wanted.statuses else [],
        "never": list(busy) if wanted.statuses and Status.PROCESSING not in wanted.statuses else [],
        "types": types,
        "key": wanted.key or None,
        "pattern": _pattern(wanted.error) if wanted.error else None,
        "error": wanted.error or None,
        "limit": limit,
    }
    rows = (await tx.execute(_SQL["found"], values)).mappings()
    return [_in_hand(ListedEvent.from_row(row), busy) for row in rows]


async def failed(tx: AsyncConnection, since: datetime | None = None) -> list[ListedEvent]:
    """The events whose last attempt failed, those that were tried last first; at most FAILED_MAX."""
    found = await find(tx, Filter(statuses=FAILED, since=since), FAILED_MAX)
    return sorted(found, key=lambda event: (event.at, event.id), reverse=True)


def grouped(events: Iterable[ListedEvent]) -> list[ErrorGroup]:
    """The dead letters among *events* by type, code and error, the most frequent ones first."""
    groups = Counter(
        (event.entity, event.error_code or "", event.error)
        for event in events
        if event.status is Status.DEAD_LETTER
    )
    found = [
        ErrorGroup(entity=entity, error_code=code, error=error, count=count)
        for (entity, code, error), count in groups.items()
    ]
    return sorted(found, key=lambda group: (-group.count, group.entity, group.error_code, group.error))


async def _types(tx: AsyncConnection, entities: Sequence[EntityType]) -> list[str] | None:
    """The queue's names of these types, as far as this ERP knows them; None: all. An unknown one would be an error."""
    if not entities:
        return None
    known = set((await tx.execute(_SQL["type_names"])).scalars())
    return [QUEUE_NAMES[entity] for entity in entities if QUEUE_NAMES[entity] in known]


def _in_hand(event: ListedEvent, busy: Collection[UUID]) -> ListedEvent:
    if event.id not in busy or event.status not in (Status.PENDING, Status.RETRY):
        return event
    return ListedEvent(**{**event.__dict__, "status": Status.PROCESSING})


def _pattern(error: str) -> str:
    parts = (re.sub(r"([\\%_])", r"\\\1", part) for part in _MASKED.split(error))
    return f"%{'%'.join(parts)}%"
