"""The record of syncs: which one runs, who carries it, and how it ended.

A sync belongs to its *owner*, a number that each process makes for itself. Every write names it, so a process from
which the sync was taken over changes nothing any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import ExitCode, Refused, RunbookError
from handlers.queue.event import EntityType
from handlers.zoho.api import Today

_SQL = queries(__name__)


class Kind(StrEnum):
    """What a sync reads."""

    FULL = "full"
    """Every list, whole; and what is deleted at the source."""
    INCREMENTAL = "incremental"
    """What has changed since the last one."""
    STOCK = "stock"
    """The stock of every item."""


class State(StrEnum):
    """How a sync stands."""

    RUNNING = "running"
    WAITING = "waiting"
    """The source gives no more calls today."""
    STOPPED = "stopped"
    """It goes on when it is started again."""
    DONE = "done"
    REPLACED = "replaced"
    """Another one with other entity types was started instead."""


class Waits(RunbookError):
    """A sync that cannot go on now. Nothing is lost."""

    exit_code = ExitCode.HELD


class TakenOver(Refused):
    """Another process carries this sync on."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One sync."""

    id: int
    environment: str
    kind: Kind
    entities: tuple[EntityType, ...]
    owner: UUID
    deletes_all: bool
    started_at: datetime
    state: State
    sentence: str = ""
    wait_seconds: float | None = None
    """How long it has to wait before it can go on."""

    @classmethod
    def from_row(cls, row: RowMapping) -> Run:
        values = dict(row)
        entities = tuple(EntityType(name) for name in values.pop("entity_types"))
        return cls(**values | {"kind": Kind(row["kind"]), "state": State(row["state"]), "entities": entities})


async def begin(
    database: AsyncEngine,
    environment: str,
    kind: Kind,
    entities: Sequence[EntityType],
    *,
    by: str,
    deletes_all: bool = False,
) -> Run:
    """Begin a sync, or carry on the one that was not finished.

    Raises Refused while a process carries one of this kind, and Waits while it must wait for the next day.
    """
    where = {"environment": environment, "kind": kind.value}
    new = {"owner": uuid4(), "deletes_all": deletes_all}
    async with transaction(database) as tx:
        if not (await tx.execute(_SQL["is_free"], {"number": lock_number(environment, kind)})).scalar_one():
            raise Refused(
                f"a sync ({kind}) of {environment} is running already: `runbook sync status` shows it"
            )
        row = (await tx.execute(_SQL["open"], where)).mappings().one_or_none()
        open_run = Run.from_row(row) if row is not None else None
        if open_run is not None and open_run.entities == tuple(entities):
            if open_run.wait_seconds:
                raise Waits(f"the sync ({kind}) of {environment} waits: {open_run.sentence}")
            taken = await tx.execute(_SQL["take_over"], {"id": open_run.id, **new})
            return Run.from_row(taken.mappings().one())
        if open_run is not None:
            await _settle(tx, open_run, State.REPLACED, "another one with other entity types was started", 0)
        values = {**where, **new, "entity_types": [entity.value for entity in entities], "by": by}
        return Run.from_row((await tx.execute(_SQL["insert"], values)).mappings().one())


@asynccontextmanager
async def carried(database: AsyncEngine, run: Run) -> AsyncIterator[None]:
    """Hold the lock of a sync. It ends with the process, so a killed sync can be carried on at once.

    Raises Refused while another process holds it.
    """
    number = {"number": lock_number(run.environment, run.kind)}
    async with database.connect() as connection:
        # Without a transaction: it would stay open as long as the sync.
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        if not (await connection.execute(_SQL["lock"], number)).scalar_one():
            raise TakenOver(f"another process carries the sync ({run.kind}) of {run.environment}")
        try:
            yield
        finally:
            await connection.execute(_SQL["unlock"], number)


def lock_number(environment: str, kind: Kind) -> int:
    """The number of the advisory lock."""
    text = f"runbook.sync {environment} {kind}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), signed=True)


async def settle(
    database: AsyncEngine, run: Run, state: State, sentence: str, *, wait_seconds: float = 0
) -> None:
    """End a sync or let it wait. Raises TakenOver when it belongs to another process by now."""
    async with transaction(database) as tx:
        await _settle(tx, run, state, sentence, wait_seconds)


async def _settle(tx: AsyncConnection, run: Run, state: State, sentence: str, wait_seconds: float) -> None:
    values = {
        "id": run.id,
        "owner": run.owner,
        "state": state.value,
        "sentence": sentence,
        "wait_seconds": wait_seconds,
    }
    if (await tx.execute(_SQL["settle"], values)).one_or_none() is None:
        raise _taken_over(run)


def _taken_over(run: Run) -> TakenOver:
    return TakenOver(f"another process has taken over the sync ({run.kind}) of {run.environment}")


async def beat(tx: AsyncConnection, run: Run) -> None:
    """Say that the sync is carried. Raises TakenOver, and then nothing of the transaction may stay."""
    if (await tx.execute(_SQL["beat"], {"id": run.id, "owner": run.owner})).one_or_none() is None:
        raise _taken_over(run)


async def count_calls(tx: AsyncConnection, environment: str, calls: int) -> int:
    """Add to the calls of today, and return them: other syncs make calls too, and the day may have changed."""
    values = {"environment": environment, "calls": calls}
    total: int = (await tx.execute(_SQL["count_calls"], values)).scalar_one()
    return total


async def today(tx: AsyncConnection, environment: str, calls_per_day: int) -> Today:
    """What is left of the day."""
    row = (await tx.execute(_SQL["today"], {"environment": environment})).one()
    return Today(calls_left=max(0, calls_per_day - row.calls), seconds_left=row.seconds_left)


async def is_carried(bind: Bind, run: Run) -> bool:
    """Whether a process carries the sync. One that was killed still says that it runs."""
    async with transaction(bind) as tx:
        number = {"number": lock_number(run.environment, run.kind)}
        return not (await tx.execute(_SQL["is_free"], number)).scalar_one()


async def newest(bind: Bind, environment: str, kind: Kind | None = None) -> Run | None:
    """The newest sync, of *kind* or of any; None where there was none."""
    async with transaction(bind) as tx:
        row = (
            (await tx.execute(_SQL["newest"], {"environment": environment, "kind": kind}))
            .mappings()
            .one_or_none()
        )
    return Run.from_row(row) if row is not None else None
