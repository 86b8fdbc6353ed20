"""Operations: every change of a host is recorded before it starts and after it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.jsonable import clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import Refused
from handlers.release import lock
from handlers.release.phase import Phase, Release

SQL = queries(__name__)
OUTPUT_MAX = 20_000
"""Characters of output that are stored; of longer output, its beginning and its end."""


@dataclass(frozen=True, kw_only=True)
class OperationRecord:
    """One change of one host: its intention, and its outcome once that is known."""

    id: str
    phase: Phase
    host: str
    kind: str
    command: str
    token: int
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    """done, failed, unreachable, unknown; None before it is confirmed."""
    exit_status: int | None
    output: str

    @classmethod
    def from_row(cls, row: Row[Any]) -> OperationRecord:
        """From the queries that list operations."""
        return cls(**{**row._mapping, "phase": Phase(row.phase)})


async def intend(
    bind: Bind,
    release: Release,
    *,
    operation_id: str,
    host: str,
    kind: str,
    command: str,
    seconds_ago: float = 0,
) -> None:
    """Record an intention while the lock is ours. A second call with the same id changes nothing.

    *seconds_ago* is the age of one that could not be recorded at its time.

    Raises LockLost without the lock, and Refused when the id belongs to another kind of operation or another host.
    """
    async with transaction(bind) as tx:
        await lock.fence(tx, release.environment, release.token)
        await tx.execute(
            SQL["intend"],
            {
                "id": operation_id,
                "release_id": release.id,
                "phase": release.phase,
                "host": host,
                "kind": kind,
                "command": clean(command),
                "token": release.token,
                "seconds_ago": float(seconds_ago),
            },
        )
        stored = (await tx.execute(SQL["operation"], {"id": operation_id})).one()
        if (stored.host, stored.kind) != (host, kind):
            raise Refused(
                f"operation {operation_id} is {stored.kind} on {stored.host} already: "
                f"the id cannot be used for {kind} on {host}"
            )


async def confirm(
    bind: Bind,
    operation_id: str,
    *,
    outcome: str,
    exit_status: int | None,
    output: str = "",
    seconds_ago: float = 0,
) -> None:
    """Record the outcome of an operation; a certain outcome is never overwritten.

    Needs no lock: any controller may report what has happened. Raises Refused for an operation without an intention.
    """
    async with transaction(bind) as tx:
        await tx.execute(
            SQL["confirm"],
            {
                "id": operation_id,
                "outcome": outcome,
                "exit_status": exit_status,
                "output": _head_and_tail(clean(output)),
                "seconds_ago": float(seconds_ago),
            },
        )
        if (await tx.execute(SQL["operation"], {"id": operation_id})).one_or_none() is None:
            raise Refused(f"operation {operation_id} has no recorded intention: nothing to confirm")


async def open_operations(bind: Bind, release: Release) -> list[OperationRecord]:
    """Operations with an uncertain outcome: the hosts must be asked about them before any other change."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["open_operations"], {"release_id": release.id})
        return [OperationRecord.from_row(row) for row in rows]


async def operations(bind: Bind, release: Release) -> list[OperationRecord]:
    """Every operation of a release, in order."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["operations"], {"release_id": release.id})
        return [OperationRecord.from_row(row) for row in rows]


@dataclass(frozen=True, kw_only=True)
class LedgerRecorder:
    """Records the operations of a deploy in the ledger, each intention and outcome in its own transaction."""

    engine: AsyncEngine
    release: Release

    async def intend(self, operation_id: str, host: str, kind: str, command: str) -> None:
        """Record the intention before the change."""
        await intend(
            self.engine, self.release, operation_id=operation_id, host=host, kind=kind, command=command
        )

    async def confirm(self, operation_id: str, outcome: str, exit_status: int | None, output: str) -> None:
        """Record the outcome after the change."""
        await confirm(self.engine, operation_id, outcome=outcome, exit_status=exit_status, output=output)


def _head_and_tail(output: str) -> str:
    if len(output) <= OUTPUT_MAX:
        return output
    half = OUTPUT_MAX // 2
    return f"{output[:half]}\n… {len(output) - 2 * half} characters left out …\n{output[-half:]}"
