"""The number of events that workers may claim now, while a limit is in force.

`limits` sets the limits, this module enforces them in the claim. Workers that share a limit take turns, so that
together they never exceed it. Events over the limit stay pending and unchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.database.transaction import remembered_yes
from handlers.queue.event import ENTITY_TYPES, QUEUE_NAMES, EntityType

GATE = "gate of "
"""How the name begins under which a gate sets limits. It is no name for a person."""
ALL = "*"
"""The entity type in the table for a limit on all types together."""

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """The number of events that may still be claimed: of each limited type, and in total; None without a limit."""

    total: int | None
    by_type: dict[EntityType, int]
    by_gate: frozenset[str] = frozenset()
    """The names of those limits that a gate has set: they apply to what no worker has taken before."""
    locked: tuple[str, ...] = ()
    """The names of the limits in the table. They are locked until the transaction ends."""

    def retries_of(self, kinds: Iterable[EntityType]) -> list[EntityType]:
        """The types of which retries are free: only a gate limits them. It has admitted these events already."""
        if not self.by_gate or (ALL in self.locked and ALL not in self.by_gate):
            return []
        people = {name for name in self.locked if name not in self.by_gate}
        return [kind for kind in kinds if QUEUE_NAMES[kind] not in people]


@dataclass(frozen=True, kw_only=True)
class InForce:
    """The limits in force, as a worker needs them between two claims."""

    everything: bool = False
    """Whether all types together are limited."""
    kinds: frozenset[EntityType] = frozenset()
    """The types that have a limit of their own."""
    window_seconds: float | None = None
    """The shortest time over which one of them counts; None without a limit."""


async def limits_exist(tx: AsyncConnection) -> bool:
    """Whether the database has the table of limits. A yes is cached for the connection."""
    return await remembered_yes(tx, "intake", _SQL["limits_exist"])


async def in_force(tx: AsyncConnection) -> InForce:
    """The limits in force, without locking them. None of them if the database has no table of limits."""
    if not await limits_exist(tx):
        return InForce()
    rows = (await tx.execute(_SQL["in_force"])).all()
    names = {row.entity_type for row in rows}
    return InForce(
        everything=ALL in names,
        kinds=frozenset(ENTITY_TYPES[name] for name in names & ENTITY_TYPES.keys()),
        window_seconds=min((row.window_seconds for row in rows), default=None),
    )


async def allowance(tx: AsyncConnection) -> Allowance | None:
    """The allowance under the limits in force, locked by this transaction; None without a limit."""
    locked = (await tx.execute(_SQL["lock_limits"])).scalars().all()
    if not locked:
        return None
    rows = (await tx.execute(_SQL["room"], {"locked": list(locked), "gate": GATE})).all()
    remaining = {row.entity_type: int(row.room) for row in rows}
    return Allowance(
        total=remaining.get(ALL),
        by_type={ENTITY_TYPES[name]: number for name, number in remaining.items() if name in ENTITY_TYPES},
        by_gate=frozenset(row.entity_type for row in rows if row.by_gate),
        locked=tuple(locked),
    )


async def take(tx: AsyncConnection, taken: Counter[EntityType], locked: Collection[str]) -> None:
    """Count *taken* against the limits that `allowance` has *locked*, and against no other: that could deadlock."""
    numbers = {QUEUE_NAMES[kind]: number for kind, number in taken.items()} | {ALL: taken.total()}
    numbers = {name: number for name, number in numbers.items() if number and name in locked}
    if numbers:
        await tx.execute(_SQL["take"], {"entities": list(numbers), "numbers": list(numbers.values())})
