"""One event of the queue as a person wants to see it: what it is, who has it, what it waits for, what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.entities import statements
from handlers.entities.registry import HANDLERS
from handlers.errors import Refused
from handlers.queue import limits
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import ENTITY_TYPES, SYNTHETIC_KEY, EntityType, Status

KEYS_MAX = 200
_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt that failed."""

    at: str
    error_class: str
    code: str
    fingerprint: str
    revision: str


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who has the event."""

    owner: str
    until: datetime | None
    """When the lease ends; None for a batch in hand, which ends with its transaction."""
    since: datetime | None
    worker: str
    """The worker's host, process, revision and last beat; empty where it sends none."""


@dataclass(frozen=True, kw_only=True)
class Redrive:
    """What a release was to do with the event."""

    release: str
    batch: int | None
    redriven_at: datetime | None
    """None: planned, and not redriven."""
    status: str | None


@dataclass(frozen=True, kw_only=True)
class Healing:
    """When healing sent the event back, and what came of it."""

    batch: int
    redriven_at: datetime
    settled_at: datetime | None
    status: str | None
    counts: bool
    """Whether it was a try: not where it came back before a worker had it."""


@dataclass(frozen=True, kw_only=True)
class EventView:
    """Everything about one event but the values of its payload."""

    id: UUID
    entity: str
    key: str
    operation: str
    status: Status
    priority: int
    synthetic: bool
    source: str
    """Who wrote it to the inbox: the queue's word for it."""
    verified: bool | None
    """Whether its signature was verified."""
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    payload_bytes: int
    payload_keys: dict[str, str]
    """The type of each key's value."""
    attempts: int
    attempts_max: int
    failed_attempts: list[Attempt]
    error_code: str | None
    error: str
    """The last error, masked."""
    holder: Holder | None
    waits_for: list[str]
    """Sentences; empty when it waits for nothing."""
    outcome: str
    worker: str
    revision: str
    local_id: str | None
    row: str
    """What the ERP's table has of the record now, without its values."""
    redrives: list[Redrive]
    healings: list[Healing] = field(default_factory=list)

    @property
    def healing_tries(self) -> int:
        """How often healing has tried it."""
        return sum(each.counts for each in self.healings)


async def read(tx: AsyncConnection, id_: UUID) -> EventView:
    """The event *id_*. Raises Refused when the queue has none."""
    row = (await tx.execute(_SQL["event"], {"id": id_})).one_or_none()
    if row is None:
        raise Refused(f"there is no event {id_} in the queue: `runbook queue list` shows what there is")
    there = set((await tx.execute(_SQL["tables_there"])).scalars())
    result: Mapping[str, Any] = json.loads(row.result) if row.result is not None else {}
    keys = await tx.execute(_SQL["payload_keys"], {"id": id_, "limit": KEYS_MAX})
    entity = ENTITY_TYPES.get(row.raw_type)
    holder = await _holder(tx, row, there)
    status = Status(row.status)
    if holder is not None and holder.until is None and status in (Status.PENDING, Status.RETRY):
        status = Status.PROCESSING
    redrives = (
        [
            Redrive(release=each.release, batch=each.batch, redriven_at=each.redriven_at, status=each.status)
            for each in await tx.execute(_SQL["redrives"], {"id": id_})
        ]
        if "release_event" in there
        else []
    )
    healings = (
        [Healing(**each._mapping) for each in await tx.execute(_SQL["healings"], {"id": id_})]
        if "heal_event" in there
        else []
    )
    return EventView(
        id=row.id,
        entity=entity or row.raw_type,
        key=row.key,
        operation=row.operation,
        status=status,
        priority=row.priority,
        synthetic=row.key == SYNTHETIC_KEY,
        source=row.source or "",
        verified=row.signature_verified,
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        payload_bytes=row.payload_bytes,
        payload_keys={each.path: each.type for each in keys},
        attempts=row.attempt_count,
        attempts_max=row.max_retry_attempts,
        failed_attempts=_attempts(result),
        error_code=row.error_code,
        error=fingerprint(row.error_message or ""),
        holder=holder,
        waits_for=[] if holder is not None else await _waits_for(tx, row, entity, result),
        outcome=_outcome(result),
        worker=_word(result, "worker"),
        revision=_word(result, "revision"),
        local_id=row.target_entity_id,
        row=await _row(tx, entity, row.key),
        redrives=redrives,
        healings=healings,
    )


def _attempts(result: Mapping[str, Any]) -> list[Attempt]:
    stored = result.get("attempts")
    return [
        Attempt(
            at=_word(each, "at"),
            error_class=_word(each, "class"),
            code=_word(each, "code"),
            fingerprint=_word(each, "fingerprint"),
            revision=_word(each, "revision"),
        )
        for each in (stored if isinstance(stored, list) else [])
        if isinstance(each, dict)
    ]


async def _holder(tx: AsyncConnection, row: Row[Any], there: set[str]) -> Holder | None:
    if row.is_leased and row.locked_by:
        worker = await _worker(tx, row.locked_by, row.at, there)
        return Holder(owner=row.locked_by, until=row.lock_expires_at, since=row.started_at, worker=worker)
    if "in_hand" not in there:
        return None
    held = (await tx.execute(_SQL["in_hand"], {"id": row.id})).one_or_none()
    if held is None:
        return None
    return Holder(
        owner=held.owner, until=None, since=held.since, worker=await _worker(tx, held.owner, row.at, there)
    )


async def _worker(tx: AsyncConnection, owner: str, at: datetime, there: set[str]) -> str:
    found = None
    if "worker" in there:
        found = (await tx.execute(_SQL["worker"], {"owner": owner})).one_or_none()
    if found is None:
        return ""
    seconds = max(0.0, (at - found.beat_at).total_seconds())
    state = "has stopped" if found.stopped_at else f"last beat {seconds:.0f} s ago"
    return f"{found.host}, process {found.pid}, revision {found.revision[:7]}, {state}"


async def _waits_for(
    tx: AsyncConnection, row: Row[Any], entity: EntityType | None, result: Mapping[str, Any]
) -> list[str]:
    status = Status(row.status)
    if status in (Status.COMPLETED, Status.FAILED):
        return []
    found = await _parents(tx, result) if row.error_code == "missing_parent" else []
    if status is Status.DEAD_LETTER:
        return [
            *found,
            "a redrive: by a release, by `runbook drain`, by healing, or by the webhook that is sent again",
        ]
    older = (await tx.execute(_SQL["older_open"], {"id": row.id})).one_or_none()
    if older is not None:
        found.append(f"an older event of its record: {older.id}, {older.status}")
    if status is Status.RETRY and row.next_retry_at is not None and row.next_retry_at > row.at:
        found.append(f"its next attempt, {(row.next_retry_at - row.at).total_seconds():.0f} s from now")
    found += [
        f"its turn: the queue is limited to {limit.sentence}"
        for limit in await limits.limits(tx)
        if limit.entity in (None, entity)
    ]
    if entity is None:
        found.append(f"nobody: there is no handler for {row.raw_type}, and a worker will bury it")
    return found or ["a worker"]


async def _parents(tx: AsyncConnection, result: Mapping[str, Any]) -> list[str]:
    stored = result.get("parents")
    keys: Sequence[str] = [key for key in stored if isinstance(key, str)] if isinstance(stored, list) else []
    found = []
    for parent in await tx.execute(_SQL["parents"], {"keys": list(keys)[:KEYS_MAX]}):
        if parent.id is None:
            found.append(f"the record {parent.key}: no event of it is in the queue")
        else:
            type_ = ENTITY_TYPES.get(parent.raw_type, parent.raw_type)
            found.append(f"{type_} {parent.key}: its newest event {parent.id} is {parent.status}")
    if number := result.get("number"):
        found.append(f"the {number} that another record still has")
    return found


async def _row(tx: AsyncConnection, entity: EntityType | None, key: str) -> str:
    """The record's row in the ERP's table: whether there is one, and its own times."""
    if entity is None:
        return ""
    table = HANDLERS[entity].table
    if not (await tx.execute(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": table.name})).scalar():
        return f"there is no table {table.name}"
    stored_text = (await tx.execute(statements.row(table), {"key": key})).scalar()
    if stored_text is None:
        return f"{table.name} has no row for it"
    stored = json.loads(stored_text)
    words = [f"{table.name} has row {stored.get('id')}"]
    words += [f"version of {stored['zoho_modified_at']}"] if stored.get("zoho_modified_at") else []
    words += [f"written {stored['updated_at']}"] if stored.get("updated_at") else []
    words += [f"deleted at the source {stored['zoho_deleted_at']}"] if stored.get("zoho_deleted_at") else []
    return ", ".join(words)


def _outcome(result: Mapping[str, Any]) -> str:
    outcome, reason = _word(result, "outcome"), _word(result, "reason")
    return f"{outcome}: {reason}" if outcome and reason else outcome


def _word(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""
