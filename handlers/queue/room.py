"""How much workers may take from the queue just now, where somebody has set a limit.

`limits` sets limits; this is the claim's side of it. A worker that shares a limit with others waits for its
turn, so that together they never take more. Held events stay pending: nothing about them changes.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.queue.event import ENTITY_TYPES, QUEUE_NAMES, EntityType

ALL = "*"
"""Stands in the table for all kinds of record together."""
_LOOK_AGAIN_SECONDS = 1.0

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What may still be taken: of some kinds, and of all together; None where that has no limit."""

    of_all: int | None
    of_kind: dict[EntityType, int]


async def is_there(tx: AsyncConnection) -> bool:
    """Whether the database has the table of limits. Known for a connection once it has."""
    known = tx.info.get("intake")
    if known is True or (known is not None and time.monotonic() - known < _LOOK_AGAIN_SECONDS):
        return known is True
    there = bool((await tx.execute(_SQL["intake_there"])).scalar_one())
    tx.info["intake"] = there or time.monotonic()
    return there


async def allowance(tx: AsyncConnection) -> Allowance | None:
    """What the limits in force still allow, held for this transaction alone; None where none is in force."""
    if not (await tx.execute(_SQL["hold_limits"])).all():
        return None
    rows = (await tx.execute(_SQL["room"])).all()
    left = {row.entity_type: int(row.room) for row in rows}
    return Allowance(
        of_all=left.get(ALL),
        of_kind={ENTITY_TYPES[name]: number for name, number in left.items() if name in ENTITY_TYPES},
    )


async def take(tx: AsyncConnection, taken: Counter[EntityType]) -> None:
    """Note what was taken under the limits that `room` has held."""
    if taken:
        numbers = {QUEUE_NAMES[kind]: number for kind, number in taken.items()} | {ALL: taken.total()}
        await tx.execute(_SQL["take"], {"entities": list(numbers), "numbers": list(numbers.values())})
