"""The number of events that workers may claim now, while a limit is in force.

`limits` sets the limits, this module enforces them in the claim. Workers that share a limit take turns, so that
together they never exceed it. Events over the limit stay pending and unchanged.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.database.transaction import remembered_yes
from handlers.queue.event import ENTITY_TYPES, QUEUE_NAMES, EntityType

ALL = "*"
"""The entity type in the table for a limit on all types together."""

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """The number of events that may still be claimed: of each limited type, and in total; None without a limit."""

    total: int | None
    by_type: dict[EntityType, int]


async def limits_exist(tx: AsyncConnection) -> bool:
    """Whether the database has the table of limits. A yes is cached for the connection."""
    return await remembered_yes(tx, "intake", _SQL["limits_exist"])


async def allowance(tx: AsyncConnection) -> Allowance | None:
    """The allowance under the limits in force, locked by this transaction; None without a limit."""
    if not (await tx.execute(_SQL["lock_limits"])).all():
        return None
    rows = (await tx.execute(_SQL["room"])).all()
    remaining = {row.entity_type: int(row.room) for row in rows}
    return Allowance(
        total=remaining.get(ALL),
        by_type={ENTITY_TYPES[name]: number for name, number in remaining.items() if name in ENTITY_TYPES},
    )


async def take(tx: AsyncConnection, taken: Counter[EntityType]) -> None:
    """Count *taken* against the limits that `allowance` has locked."""
    if taken:
        numbers = {QUEUE_NAMES[kind]: number for kind, number in taken.items()} | {ALL: taken.total()}
        await tx.execute(_SQL["take"], {"entities": list(numbers), "numbers": list(numbers.values())})
