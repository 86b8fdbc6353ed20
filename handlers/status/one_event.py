"""One event of the queue as a person wants to see it: what it is, who has it, what it waits for, what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from handlers.status.event_view import Attempt, EventHolder, EventView, Healing, Redrive

KEYS_MAX = 200
_SQL = queries(__name__)


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


async def _holder(tx: AsyncConnection, row: Row[Any], there: set[str]) -> EventHolder | None:
    if row.is_leased and row.locked_by:
        worker = await _worker(tx, row.locked_by, row.at, there)
        return EventHolder(
            owner=row.locked_by, until=row.lock_expires_at, since=row.started_at, worker=worker
        )
    if "in_hand" not in there:
        return None
    held = (await tx.execute(_SQL["in_hand"], {"id": row.id})).one_or_none()
    if held is None:
        return None
    return EventHolder(
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
