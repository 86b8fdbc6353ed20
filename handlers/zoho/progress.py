"""How far a sync is with each entity type, and the records that it has found: where it goes on after a kill."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.queue.event import EntityType
from handlers.zoho.runs import Run, beat, count_calls

_SQL = queries(__name__)


class Stage(StrEnum):
    """What a sync does with an entity type."""

    LISTING = "listing"
    REMOVING = "removing"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far a sync is with one entity type, with its counts."""

    entity: EntityType
    stage: Stage
    read_at: datetime
    """The source's time when it was begun: the next incremental sync begins there."""
    since: datetime | None
    """From when on changes are read; None: everything."""
    number: int
    """Which time the list is read: again until there is nothing new in it."""
    page: int
    fresh: int
    """Rows that were not found before in this sync, of this reading of the list."""
    after_key: str
    expected: int | None
    """How many records the last full sync found."""
    listed: int
    read: int
    queued: int
    deleted: int
    unreadable: int
    calls: int
    sentence: str

    @classmethod
    def from_row(cls, row: RowMapping) -> Step:
        values = dict(row)
        return cls(
            **{name: values[name] for name in values.keys() - {"entity_type", "pass", "stage"}},
            entity=EntityType(values["entity_type"]),
            number=values["pass"],
            stage=Stage(values["stage"]),
        )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was found before of a record."""

    in_this_run: bool
    stamp: datetime | None
    harmless: str | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A record that was found in a list, or by its id."""

    key: str
    stamp: datetime | None
    harmless: str | None = None


async def step(tx: AsyncConnection, run: Run, entity: EntityType) -> Step | None:
    """How far the sync is with *entity*; None where it was not begun."""
    found = await steps(tx, run.id, entity)
    return found[0] if found else None


async def steps(bind: Bind, run_id: int, entity: EntityType | None = None) -> list[Step]:
    """How far a sync is, in the order of its entity types in the ledger."""
    async with transaction(bind) as tx:
        rows = (await tx.execute(_SQL["steps"], {"run_id": run_id, "entity": entity})).mappings()
        return [Step.from_row(row) for row in rows]


async def begin_step(
    tx: AsyncConnection,
    run: Run,
    entity: EntityType,
    *,
    read_at: datetime,
    since: datetime | None,
    expected: int | None,
) -> None:
    """Begin an entity type. Raises TakenOver."""
    await beat(tx, run)
    values = {
        "run_id": run.id,
        "entity": entity.value,
        "read_at": read_at,
        "since": since,
        "expected": expected,
    }
    await tx.execute(_SQL["begin_step"], values)


async def advance(tx: AsyncConnection, run: Run, now: Step, *, calls: int) -> int:
    """Write how far the sync is, and its calls. Returns the calls of all syncs today.

    Raises TakenOver, and then nothing of the transaction may stay.
    """
    await beat(tx, run)
    values = asdict(now) | {
        "run_id": run.id,
        "entity": now.entity.value,
        "pass": now.number,
        "stage": now.stage.value,
    }
    await tx.execute(_SQL["advance"], values)
    return await count_calls(tx, run.environment, calls)


async def cursor(
    tx: AsyncConnection, environment: str, entity: EntityType
) -> tuple[datetime | None, int | None]:
    """Up to when changes were read, and how many records the last full sync found; None: never."""
    row = (
        await tx.execute(_SQL["cursor"], {"environment": environment, "entity": entity.value})
    ).one_or_none()
    return (row.read_at, row.records) if row is not None else (None, None)


async def move_cursor(tx: AsyncConnection, run: Run, now: Step, records: int | None) -> None:
    """Let the next incremental sync of an entity type begin where this one did."""
    values = {
        "environment": run.environment,
        "entity": now.entity.value,
        "read_at": now.read_at,
        "records": records,
    }
    await tx.execute(_SQL["move_cursor"], values)


async def seen(tx: AsyncConnection, run: Run, entity: EntityType, keys: Collection[str]) -> dict[str, Seen]:
    """What was found before of these records, by this sync or by the one before."""
    rows = await tx.execute(_SQL["seen"], _where(run, entity) | {"keys": list(keys)})
    return {
        row.key: Seen(in_this_run=row.in_this_run, stamp=row.stamp, harmless=row.harmless) for row in rows
    }


async def see(tx: AsyncConnection, run: Run, entity: EntityType, found: Sequence[Found]) -> None:
    """Note what was found."""
    if not found:
        return
    unique = {each.key: each for each in found}.values()
    values: dict[str, Any] = {
        "keys": [each.key for each in unique],
        "stamps": [each.stamp for each in unique],
        "harmless": [each.harmless for each in unique],
    }
    await tx.execute(_SQL["see"], _where(run, entity) | values)


async def unseen(tx: AsyncConnection, run: Run, entity: EntityType, keys: Collection[str]) -> list[str]:
    """Those of *keys* that this sync has not found."""
    rows = await tx.execute(_SQL["unseen"], _where(run, entity) | {"keys": list(keys)})
    return list(rows.scalars())


def _where(run: Run, entity: EntityType) -> dict[str, Any]:
    return {
        "environment": run.environment,
        "kind": run.kind.value,
        "entity": entity.value,
        "run_id": run.id,
    }
