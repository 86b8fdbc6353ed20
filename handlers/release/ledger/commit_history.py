"""What a ledger knows of one commit. It only reads, and reads a ledger of any version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.release.phase import Phase

SQL = queries(__name__)

LOOK_BACK = 50
"""So many runs of one commit are read."""


@dataclass(frozen=True, kw_only=True)
class CommitRun:
    """One release that deployed a commit, or one phase by hand that looked at it."""

    id: str
    phase: Phase
    reason: str
    finished_at: datetime | None
    deploys: bool
    watches: bool
    skipped: tuple[Phase, ...]
    """The phases that a person ended without their result: they prove nothing."""

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """From the query `of_commit`."""
        return cls(
            id=row.id,
            phase=Phase(row.phase),
            reason=row.reason,
            finished_at=row.finished_at,
            deploys=Phase.DEPLOYING in row.scope,
            watches=Phase.WATCHING in row.scope,
            skipped=tuple(Phase(phase) for phase in row.skipped),
        )


async def of_commit(tx: AsyncConnection, environment: str, revision: str) -> list[CommitRun]:
    """The newest runs of this whole commit id in an environment, newest first; none where there is no ledger."""
    if not (await tx.execute(SQL["is_there"])).scalar_one():
        return []
    values = {"environment": environment, "revision": revision, "limit": LOOK_BACK}
    return [CommitRun.from_row(row) for row in await tx.execute(SQL["of_commit"], values)]
