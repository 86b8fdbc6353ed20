"""Which workers there are: where each lives, on what revision, when it beat last, and what it has in hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database import clock
from handlers.database.queries import queries

LIVE_SECONDS, SILENT_SECONDS = 15.0, 120.0
"""A worker beats every few seconds. In a long batch it is quiet; after two minutes it is silent, as in the checks."""
SHOWN = timedelta(days=1)
_SQL = queries(__name__)


class Sign(StrEnum):
    """What a worker's heartbeat says."""

    LIVE = "live"
    QUIET = "quiet"
    """No beat for a moment: a long batch, or the beginning of silence."""
    SILENT = "silent"
    """It did not stop properly, and beats no more."""
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """One worker process."""

    owner: str
    host: str
    """The name that its machine gives itself."""
    pid: int
    revision: str
    sign: Sign
    silent_seconds: float
    started_at: datetime
    beat_at: datetime
    in_hand: int
    """Events that it holds now."""
    applied: int
    failed: int

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        stopped = row["stopped_at"] is not None
        seconds = max(0.0, row["silent_seconds"])
        quiet = Sign.QUIET if seconds < SILENT_SECONDS else Sign.SILENT
        names = ("owner", "host", "pid", "revision", "started_at", "beat_at", "applied", "failed")
        return cls(
            **{name: row[name] for name in names},
            sign=Sign.STOPPED if stopped else Sign.LIVE if seconds < LIVE_SECONDS else quiet,
            silent_seconds=seconds,
            in_hand=row["held"] + row["leased"],
        )


@dataclass(frozen=True, kw_only=True)
class BegunWorker:
    """A worker that has begun since a moment."""

    owner: str
    host: str
    pid: int
    revision: str


async def is_there(tx: AsyncConnection) -> bool:
    """Whether workers can send heartbeats to this database. The ERP's own workers send none all the same."""
    return bool((await tx.execute(_SQL["is_there"])).scalar_one())


async def workers(tx: AsyncConnection, since: timedelta = SHOWN) -> list[WorkerRow]:
    """The workers of the last day by host; empty without our ledger."""
    if not await is_there(tx):
        return []
    rows = await tx.execute(_SQL["workers"], {"since": await clock.now(tx) - since})
    return [WorkerRow.from_row(row) for row in rows.mappings()]


async def begun_since(tx: AsyncConnection, since: datetime) -> Sequence[BegunWorker]:
    """The workers that began since then and still live."""
    rows = await tx.execute(_SQL["begun"], {"since": since})
    return [BegunWorker(**row) for row in rows.mappings()]
