"""Recording the operations of a way back: the hosts do not wait while the database is away.

A forward change is recorded before it starts. A rollback that is already decided goes on without the ledger, and what
could not be recorded is kept and written afterwards. The host's folder of the operation has the same facts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.errors import LEDGER_AWAY
from handlers.release.ledger import intents
from handlers.release.phase import Release

log = logging.getLogger(__name__)

WRITE_SECONDS = 3.0
"""A way back waits no longer than this for the ledger."""
PAUSE_SECONDS = 10.0
"""After a failed write, the ledger is not tried again for this time, so that an absent one delays nothing."""


@dataclass(frozen=True, kw_only=True)
class Intention:
    """The intention of an operation that is not recorded yet."""

    id: str
    host: str
    kind: str
    command: str
    at: float = field(default_factory=monotonic)
    """When it was made, by the monotonic clock of this process. The ledger keeps that time."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of an operation that is not recorded yet."""

    id: str
    outcome: str
    exit_status: int | None
    output: str
    at: float = field(default_factory=monotonic)


Unrecorded = Intention | Outcome


@dataclass(kw_only=True)
class DeferringRecorder:
    """Records operations in the ledger when it answers, and keeps them when it does not."""

    engine: AsyncEngine
    release: Release
    unrecorded: list[Unrecorded] = field(default_factory=list)
    """What is not recorded yet, in order."""
    _away_until: float = 0.0

    async def intend(self, operation_id: str, host: str, kind: str, command: str) -> None:
        """Record the intention. Raises LockLost when another controller has taken the lock."""
        await self._keep(Intention(id=operation_id, host=host, kind=kind, command=command))

    async def confirm(self, operation_id: str, outcome: str, exit_status: int | None, output: str) -> None:
        """Record the outcome."""
        await self._keep(Outcome(id=operation_id, outcome=outcome, exit_status=exit_status, output=output))

    async def _keep(self, record: Unrecorded) -> None:
        self.unrecorded.append(record)
        if monotonic() < self._away_until:
            return
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                while self.unrecorded:
                    await write(self.engine, self.release, self.unrecorded[:1])
                    del self.unrecorded[0]
        except (*LEDGER_AWAY, TimeoutError) as error:
            self._away_until = monotonic() + PAUSE_SECONDS
            log.warning("the ledger is told later: %s", error or "it does not answer")


async def write(engine: AsyncEngine, release: Release, records: Sequence[Unrecorded]) -> None:
    """Record intentions and outcomes, in order. Writing them again changes nothing."""
    for record in records:
        if isinstance(record, Intention):
            await intents.intend(
                engine,
                release,
                operation_id=record.id,
                host=record.host,
                kind=record.kind,
                command=record.command,
                seconds_ago=monotonic() - record.at,
            )
        else:
            await intents.confirm(
                engine,
                record.id,
                outcome=record.outcome,
                exit_status=record.exit_status,
                output=record.output,
                seconds_ago=monotonic() - record.at,
            )
