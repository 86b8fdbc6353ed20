"""Operations: every change of a host is written down before it is made and after."""

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
"""Characters of output that are kept; of more, the beginning and the end."""


@dataclass(frozen=True, kw_only=True)
class OperationRecord:
    """One change on one host, intended and perhaps confirmed."""

    id: str
    phase: Phase
    host: str
    kind: str
    command: str
    token: int
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    """done, failed, unreachable, unknown; None while nobody has confirmed it."""
    exit_status: int | None
    output: str

    @classmethod
    def from_row(cls, row: Row[Any]) -> OperationRecord:
        """From the queries that list operations."""
        return cls(**{**row._mapping, "phase": Phase(row.phase)})


async def intend(
    bind: Bind, release: Release, *, operation_id: str, host: str, kind: str, command: str
) -> None:
    """Write an intention down, provided the lock is ours. The same id again is the same intention."""
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
            },
        )
        written = (await tx.execute(SQL["operation"], {"id": operation_id})).one()
        if (written.host, written.kind) != (host, kind):
            raise Refused(
                f"operation {operation_id} is {written.kind} on {written.host} already: "
                f"it cannot mean {kind} on {host} as well"
            )


async def confirm(
    bind: Bind, operation_id: str, *, outcome: str, exit_status: int | None, output: str = ""
) -> None:
    """Write down what came of an operation; a certain outcome is never overwritten.

    Needs no lock: it is a fact about the past, and worth having from whoever knows it.
    """
    async with transaction(bind) as tx:
        await tx.execute(
            SQL["confirm"],
            {
                "id": operation_id,
                "outcome": outcome,
                "exit_status": exit_status,
                "output": _head_and_tail(clean(output)),
            },
        )
        if (await tx.execute(SQL["operation"], {"id": operation_id})).one_or_none() is None:
            raise Refused(f"operation {operation_id} was never intended: nothing to confirm")


async def open_operations(bind: Bind, release: Release) -> list[OperationRecord]:
    """Operations whose outcome is not certain: the hosts must be asked about them before anything else."""
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
    """What a deploy tells its intentions and outcomes to; each is a transaction of its own."""

    engine: AsyncEngine
    release: Release

    async def intend(self, operation_id: str, host: str, kind: str, command: str) -> None:
        """Before the change."""
        await intend(
            self.engine, self.release, operation_id=operation_id, host=host, kind=kind, command=command
        )

    async def confirm(self, operation_id: str, outcome: str, exit_status: int | None, output: str) -> None:
        """After it."""
        await confirm(self.engine, operation_id, outcome=outcome, exit_status=exit_status, output=output)


def _head_and_tail(output: str) -> str:
    if len(output) <= OUTPUT_MAX:
        return output
    half = OUTPUT_MAX // 2
    return f"{output[:half]}\n… {len(output) - 2 * half} characters left out …\n{output[-half:]}"
