"""Throttling the queue: at most so many events of one type, or of all, in ten seconds.

An inconclusive measurement then costs only a few events. Every limit expires by the database's clock, so that a dead
controller never stops the queue permanently. These are the limits of people; `throttle` sets those of a gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, remembered_yes, transaction
from handlers.errors import Refused
from handlers.queue import redrive
from handlers.queue.event import ENTITY_TYPES, QUEUE_NAMES, EntityType
from handlers.queue.room import ALL, GATE, limits_exist

SECONDS_MAX = 24 * 3600.0
WINDOW_SECONDS = 10.0
"""The time over which the limit of a person counts."""
INT_MAX = 2**31 - 1

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit in force."""

    entity: EntityType | None
    """None limits all types together."""
    per_ten_seconds: int
    until: datetime
    set_by: str
    """A release, or the operator's name."""
    reason: str
    set_at: datetime
    window_seconds: float = WINDOW_SECONDS
    """The real time over which it counts: less than ten seconds only for a gate in a rehearsal."""

    @property
    def is_of_a_gate(self) -> bool:
        """Whether a gate has set it, which sets it again at its next look after it was lifted."""
        return self.set_by.startswith(GATE)

    @property
    def sentence(self) -> str:
        """The limit as a line for people."""
        scope = f"of {self.entity}" if self.entity else "of all types together"
        return (
            f"{self.per_ten_seconds} events {scope} in {self.window_seconds:.3g} s until {self.until:%H:%M:%S} UTC, "
            f"by {self.set_by}: {self.reason}"
        )

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        values = {name: value for name, value in row.items() if name != "entity_type"}
        return cls(**values, entity=ENTITY_TYPES.get(row["entity_type"]))


async def limit(
    bind: Bind, entity: EntityType | None, *, per_ten_seconds: int, seconds: float, by: str, reason: str
) -> Limit:
    """Let workers claim at most *per_ten_seconds* events of *entity*, or of all types if it is None.

    The limit expires after *seconds* and replaces the existing limit of that type, a gate's too; 0 stops the queue.
    Raises Refused when a number or the name is out of range.
    """
    if per_ten_seconds < 0:
        raise Refused(f"a limit must be 0 or more events, not {per_ten_seconds}; 0 stops the queue")
    if not 0 < seconds <= SECONDS_MAX:
        raise Refused(
            f"a limit must last between 0 and {SECONDS_MAX:.0f} seconds, not {seconds:g}; set it again to extend it"
        )
    if by.startswith(GATE):
        raise Refused(f"a name that begins with {GATE!r} is for the gate of a release: use your own")
    values = {
        "entity": _name(entity),
        "per_ten_seconds": min(per_ten_seconds, INT_MAX),
        "seconds": seconds,
        "by": clean(by),
        "reason": clean(reason),
    }
    async with transaction(bind) as tx:
        new_limit = Limit.from_row((await tx.execute(_SQL["limit"], values)).mappings().one())
        if await windows_exist(tx):
            await tx.execute(_SQL["reset_window"], values)
    return new_limit


async def windows_exist(tx: AsyncConnection) -> bool:
    """Whether a limit may count over less than ten seconds in this database. A yes is cached for the connection."""
    return await remembered_yes(tx, "intake_window", _SQL["windows_exist"])


async def lift(bind: Bind, entity: EntityType | None) -> list[Limit]:
    """Remove the limit of *entity*, or the one on all types. Returns it; empty if none was in force."""
    return await _lift(bind, _name(entity))


async def lift_all(bind: Bind) -> list[Limit]:
    """Remove every limit. Returns those that were in force."""
    return await _lift(bind, None)


async def limits(bind: Bind) -> list[Limit]:
    """The limits in force; empty if the ledger has no table of limits yet."""
    async with transaction(bind) as tx:
        if not await limits_exist(tx):
            return []
        rows = (await tx.execute(_SQL["limits"], {"names": [ALL, *ENTITY_TYPES]})).mappings()
        return [Limit.from_row(row) for row in rows]


@dataclass(frozen=True, kw_only=True)
class Holds:
    """The last limit of each type, in force or ended: the time until which it held events, and who set it."""

    until: Mapping[str, datetime] = field(default_factory=dict)
    """By the queue's name of the type; `*` is all types."""
    held_by: Mapping[str, str] = field(default_factory=dict)
    """Only of those in force."""

    def holder(self, raw_types: Iterable[str]) -> str:
        """Who holds one of these types now; empty when nobody does."""
        return next((name for type_ in (ALL, *raw_types) if (name := self.held_by.get(type_))), "")

    def until_of(self, raw_types: Iterable[str]) -> datetime | None:
        """Until when one of these types was or is held; None if it never was."""
        return max((self.until[type_] for type_ in (ALL, *raw_types) if type_ in self.until), default=None)


async def holds(bind: Bind) -> Holds:
    """What limits hold and held. Nothing if the ledger has no table of limits yet."""
    async with transaction(bind) as tx:
        if not await limits_exist(tx):
            return Holds()
        rows = (await tx.execute(_SQL["holds"])).all()
    return Holds(
        until={row.entity_type: row.until for row in rows},
        held_by={row.entity_type: row.set_by for row in rows if row.in_force},
    )


async def _lift(bind: Bind, name: str | None) -> list[Limit]:
    async with transaction(bind) as tx:
        rows = (await tx.execute(_SQL["lift"], {"entity": name})).mappings().all()
        # The throttled events are due now.
        await redrive.notify(tx)
    return [Limit.from_row(row) for row in rows]


def _name(entity: EntityType | None) -> str:
    return ALL if entity is None else QUEUE_NAMES[entity]
