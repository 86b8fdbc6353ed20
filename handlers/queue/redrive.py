"""Redriving dead letters, restoring them, and notifying the workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Self
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries

CHANNEL = "tds_sync_queue"
"""The NOTIFY channel on which a transaction that adds events wakes the workers."""

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class BeforeRedrive:
    """The columns that a redrive clears in a dead letter, as JSON values, so that `restore` can put them back."""

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
    """Set the dead letters among *ids*, and nothing else, back to pending; wakes the workers.

    Returns the previous values of the events that were dead letters.
    """
    rows = await tx.execute(_SQL["redrive"], {"ids": list(ids)})
    previous_values = [BeforeRedrive.from_row(row) for row in rows.mappings()]
    if previous_values:
        await notify(tx)
    return previous_values


async def restore(
    tx: AsyncConnection, previous_values: Sequence[BeforeRedrive], *, leased_before: datetime | None = None
) -> list[UUID]:
    """Turn redriven events that have not settled back into the dead letters they were.

    Events that were leased before *leased_before* are included: their workers are gone by now. Returns the restored
    ids. A missing id has settled, or is leased by a worker.
    """
    columns = {
        f"{field.name}s": [getattr(previous, field.name) for previous in previous_values]
        for field in fields(BeforeRedrive)
    }
    columns["ids"] = [UUID(previous.id) for previous in previous_values]
    rows = await tx.execute(_SQL["restore"], columns | {"leased_before": leased_before})
    restored = {row.id for row in rows}
    return [id_ for id_ in columns["ids"] if id_ in restored]


async def notify(tx: AsyncConnection) -> None:
    """Wake the listening workers when this transaction commits."""
    await tx.execute(_SQL["notify"], {"channel": CHANNEL})
