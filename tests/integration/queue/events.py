"""Puts events into the queue in any state, and looks at their rows whole."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.queue import insert, redrive, settle
from handlers.queue.claim import claim as claim_events
from handlers.queue.event import EntityType, ErrorClass, Event, Outcome, Result

APPLIED = Result(outcome=Outcome.APPLIED, target="7")

FORMER = [field.name for field in fields(redrive.BeforeRedrive) if field.name not in ("id", "attempt_count")]
"""What a redrive wipes and a restore puts back, besides the attempts."""


async def event(
    engine: AsyncEngine, key: str, *, entity: EntityType = EntityType.PRODUCT, age: float = 0, **columns: Any
) -> UUID:
    """A pending event of the record *key*, *age* seconds old; *columns* are set as they are given."""
    async with engine.begin() as tx:
        payload = json.dumps({"item_id": key, "name": f"item {key}"})
        id_ = await insert.insert_event(tx, entity=entity, key=key, payload_text=payload)
        await tx.execute(
            text("UPDATE tds_sync_queue SET created_at = now() - make_interval(secs => :age) WHERE id = :id"),
            {"id": id_, "age": age},
        )
    await change(engine, id_, **columns)
    return id_


async def dead_letter(engine: AsyncEngine, key: str, **columns: Any) -> UUID:
    """A dead letter as the ERP's own worker leaves one."""
    values: dict[str, Any] = {
        "status": "dead_letter",
        "attempt_count": 3,
        "error_code": "xd2s",
        "error_message": "greenlet_spawn has not been called; can't call await_only() here",
    }
    return await event(engine, key, **values | columns)


async def change(engine: AsyncEngine, id_: UUID, **columns: Any) -> None:
    """Set *columns* of one event behind everybody's back. A value beginning with `sql:` is an expression."""
    for name, value in columns.items():
        expression = value[4:] if isinstance(value, str) and value.startswith("sql:") else ":value"
        cast = {"status": "CAST(:value AS tds_event_status)"}.get(name, expression)
        values = {"id": id_} | ({"value": value} if ":value" in cast else {})
        async with engine.begin() as tx:
            await tx.execute(text(f"UPDATE tds_sync_queue SET {name} = {cast} WHERE id = :id"), values)


def missing(id_: UUID, *parents: str) -> settle.Failure:
    """What a worker records for an event whose *parents* are missing."""
    return settle.Failure(
        id=id_,
        error_class=ErrorClass.MISSING_PARENT,
        code="missing_parent",
        message="waits",
        parents=parents,
    )


async def wait_out(engine: AsyncEngine, id_: UUID, seconds: float = 3600) -> None:
    """Let *seconds* pass for an event that waits for a parent, so that it is due."""
    since = "sql:jsonb_set(processing_result, '{waiting_since}', to_jsonb(CAST("
    since += f"processing_result ->> 'waiting_since' AS numeric) - {seconds}))"
    await change(engine, id_, processing_result=since, next_retry_at="sql:now()")


async def row(engine: AsyncEngine, id_: UUID) -> dict[str, Any]:
    """The event's row, every column."""
    async with engine.connect() as tx:
        found = await tx.execute(text("SELECT * FROM tds_sync_queue WHERE id = :id"), {"id": id_})
        return dict(found.mappings().one())


async def bytes_of(engine: AsyncEngine, ids: list[UUID]) -> list[str]:
    """The rows as PostgreSQL prints them, to compare them to the last byte."""
    async with engine.connect() as tx:
        found = await tx.execute(
            text("SELECT q::text FROM tds_sync_queue q WHERE id = ANY (:ids) ORDER BY id"), {"ids": ids}
        )
        return list(found.scalars())


async def claim(engine: AsyncEngine, owner: str = "a", limit: int = 100, **narrow: object) -> list[Event]:
    """Lease events to *owner*."""
    async with engine.begin() as tx:
        return await claim_events(tx, owner=owner, limit=limit, lease_seconds=60, **narrow)  # type: ignore[arg-type]


async def complete(engine: AsyncEngine, owner: str, ids: list[UUID]) -> set[UUID]:
    """Settle events as applied, in the name of *owner*."""
    async with engine.begin() as tx:
        return await settle.complete(tx, owner=owner, revision="r1", results=dict.fromkeys(ids, APPLIED))


def failure(
    id_: UUID, error_class: ErrorClass = ErrorClass.TRANSIENT, message: str = "boom 17"
) -> settle.Failure:
    """Why an event was not applied."""
    return settle.Failure(id=id_, error_class=error_class, code="X", message=message, sqlstate="40P01")


async def without_notes(engine: AsyncEngine) -> None:
    """As in a database with an older ledger: every batch is leased."""
    async with engine.begin() as tx:
        await tx.execute(text("DROP TABLE runbook.in_hand"))
