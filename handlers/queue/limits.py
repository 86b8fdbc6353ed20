"""Holding the queue back: on suspicion only a few events of one kind, or of all, go through in each ten seconds.

Waiting out a doubt then costs a few events. Every limit ends by the database's clock, so that a controller that died
never stops the queue for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy import RowMapping

from handlers.database.jsonable import clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import Refused
from handlers.queue import redrive
from handlers.queue.event import ENTITY_TYPES, QUEUE_NAMES, EntityType
from handlers.queue.room import ALL, is_there

SECONDS_MAX = 24 * 3600.0

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit in force."""

    entity: EntityType | None
    """None limits all kinds together."""
    per_ten_seconds: int
    until: datetime
    set_by: str
    """A release or a person."""
    reason: str
    set_at: datetime

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        values = {name: value for name, value in row.items() if name != "entity_type"}
        return cls(**values, entity=ENTITY_TYPES.get(row["entity_type"]))


async def limit(
    bind: Bind, entity: EntityType | None, *, per_ten_seconds: int, seconds: float, by: str, reason: str
) -> Limit:
    """Let workers take at most so many events of *entity*, or of all kinds together, in any ten seconds.

    It holds for *seconds* from now, replaces the limit of that kind that is there, and 0 lets nothing through.
    """
    if per_ten_seconds < 0:
        raise Refused(f"a limit of {per_ten_seconds} events is none: 0 lets nothing through")
    if not 0 < seconds <= SECONDS_MAX:
        raise Refused(f"a limit may hold for up to {SECONDS_MAX:.0f} seconds, not {seconds:g}: set it again")
    values = {
        "entity": _name(entity),
        "per_ten_seconds": min(per_ten_seconds, 2**31 - 1),
        "seconds": seconds,
        "by": clean(by),
        "reason": clean(reason),
    }
    async with transaction(bind) as tx:
        return Limit.from_row((await tx.execute(_SQL["limit"], values)).mappings().one())


async def lift(bind: Bind, entity: EntityType | None) -> list[Limit]:
    """End the limit of *entity*, or the one on all kinds together. Returns it; empty where none was in force."""
    return await _lift(bind, _name(entity))


async def lift_all(bind: Bind) -> list[Limit]:
    """End every limit. Returns those that were in force."""
    return await _lift(bind, None)


async def limits(bind: Bind) -> list[Limit]:
    """The limits in force; none where the ledger is older than limits."""
    async with transaction(bind) as tx:
        if not await is_there(tx):
            return []
        return [Limit.from_row(row) for row in (await tx.execute(_SQL["limits"])).mappings()]


async def _lift(bind: Bind, name: str | None) -> list[Limit]:
    async with transaction(bind) as tx:
        rows = (await tx.execute(_SQL["lift"], {"entity": name})).mappings().all()
        # What was held has become due.
        await redrive.notify(tx)
    return [Limit.from_row(row) for row in rows]


def _name(entity: EntityType | None) -> str:
    return ALL if entity is None else QUEUE_NAMES[entity]
