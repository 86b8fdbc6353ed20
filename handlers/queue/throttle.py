"""The limits that a gate sets, under a name of its own and beside those of people.

A person always wins: the gate never overwrites, shortens or lifts the limit of anybody else. Its own limits are short
and renewed at each look, so that a dead controller frees the queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import Refused
from handlers.queue import redrive
from handlers.queue.event import ENTITY_TYPES, QUEUE_NAMES, EntityType
from handlers.queue.limits import INT_MAX, SECONDS_MAX, WINDOW_SECONDS, Limit, limits, windows_exist
from handlers.queue.room import ALL, GATE, limits_exist

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Throttled:
    """The limits in force after a gate has set its own. None among the types limits all types together."""

    ours: Mapping[EntityType | None, Limit]
    lifted: frozenset[EntityType | None]
    """What the gate held until now."""
    others: Mapping[EntityType | None, Limit]
    """The limits of people, also of types that the gate did not want to limit; `set_by` and the number say whose."""


def gate_of(release_id: str) -> str:
    """The name under which the gate of a release sets its limits."""
    return f"{GATE}release {release_id}"


async def throttle(
    bind: Bind,
    quotas: Mapping[EntityType | None, int],
    *,
    by: str,
    seconds: float,
    tick_seconds: float,
    reason: str,
) -> Throttled:
    """Limit exactly the types in *quotas* to so many events in *tick_seconds*, for *seconds*, in the name of *by*.

    What *by* held besides them is lifted. None among the types limits all together; 0 holds everything. Both times are
    real seconds, by the database's clock. Raises Refused when a number or the name is out of range, or when the ledger
    is too old.
    """
    _raise_if_wrong(quotas, by=by, seconds=seconds, tick_seconds=tick_seconds)
    names = {ALL if entity is None else QUEUE_NAMES[entity]: number for entity, number in quotas.items()}
    values = {
        "entities": list(names),
        "quotas": [min(number, INT_MAX) for number in names.values()],
        "seconds": seconds,
        "window_seconds": tick_seconds,
        "by": by,
        "reason": clean(reason),
    }
    async with transaction(bind) as tx:
        if not await windows_exist(tx):
            raise Refused("the ledger is too old for the limits of a gate: run `runbook db upgrade`")
        lifted = await _lift(tx, by, list(names))
        if names:
            await tx.execute(_SQL["throttle"], values)
            # A larger quota has room at once, and a window may have passed since the last look.
            await redrive.notify(tx)
        found = await limits(tx)
    return Throttled(
        ours={limit.entity: limit for limit in found if limit.set_by == by},
        lifted=frozenset(lifted),
        others={limit.entity: limit for limit in found if limit.set_by != by},
    )


async def release(bind: Bind, *, by: str) -> frozenset[EntityType | None]:
    """Lift every limit of *by* and return their types. Nothing happens if the ledger has no table of limits yet."""
    async with transaction(bind) as tx:
        return frozenset(await _lift(tx, by, []) if await limits_exist(tx) else ())


async def _lift(tx: AsyncConnection, by: str, kept: list[str]) -> list[EntityType | None]:
    await tx.execute(_SQL["lock_limits"])
    lifted = (await tx.execute(_SQL["lift"], {"by": by, "kept": kept})).scalars().all()
    if lifted:
        # The throttled events are due now.
        await redrive.notify(tx)
    return [ENTITY_TYPES.get(name) for name in lifted]


def _raise_if_wrong(
    quotas: Mapping[EntityType | None, int], *, by: str, seconds: float, tick_seconds: float
) -> None:
    if not by.startswith(GATE) or clean(by) != by:
        raise Refused(f"the name of a gate begins with {GATE!r}, unlike {by!r}")
    if wrong := {entity or "all": number for entity, number in quotas.items() if number < 0}:
        raise Refused(f"a quota must be 0 or more events, not {wrong}")
    if not 0 < seconds <= SECONDS_MAX:
        raise Refused(f"a limit must last between 0 and {SECONDS_MAX:.0f} seconds, not {seconds:g}")
    if not 0 < tick_seconds <= WINDOW_SECONDS:
        raise Refused(f"a limit counts over {WINDOW_SECONDS:g} seconds or less, not {tick_seconds:g}")
