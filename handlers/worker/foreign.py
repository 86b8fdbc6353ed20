"""The ERP's own workers beside ours: they keep to no order, and their rows say nothing of a version.

Where one of them was faster with a newer event of a record, an older event of ours would overwrite what it wrote:
there is no stamp to hold against. The queue knows better. What others have applied is folded into the row as if it
were ours, and the older event ends as superseded; while they are still at it, ours is tried again later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.errors import TryAgain
from handlers.queue.event import ENTITY_TYPES, Event, Result, event_of
from handlers.worker.batch import Apply

_SQL = queries(__name__)

OWNER_PATTERN = "-[0-9]+-[0-9a-f]{8}$"
"""How the tokens of our own workers end (`worker.new_owner`)."""


class RecordInUse(TryAgain):
    """Somebody else is at a newer event of the same record: which of both is written last would be chance."""


def with_foreign_events(apply: Apply, owner: str) -> Apply:
    """*apply*, so that the older never stands over the newer that another worker has applied."""

    async def minded(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        results = await apply(tx, events)
        others = await _newer(tx, owner, events)
        if not others:
            return results
        records = {(other.entity, other.key) for other in others}
        again = [event for event in events if (event.entity, event.key) in records]
        told = await apply(tx, [*again, *others])
        return {**results, **{event.id: told[event.id] for event in again}}

    return minded


async def _newer(tx: AsyncConnection, owner: str, events: Sequence[Event]) -> list[Event]:
    """Newer events of the same records that others have applied. Raises RecordInUse while they are at one."""
    ids = [event.id for event in events]
    rows = (
        await tx.execute(
            _SQL["in_other_hands"],
            {"ids": ids, "owner": owner, "ours": OWNER_PATTERN},
        )
    ).all()
    for row in rows:
        if row.in_hand:
            raise RecordInUse(
                f"{row.locked_by} is at a newer event of {ENTITY_TYPES[row.entity_type].value} {row.source_entity_id}"
            )
    found = {row.id: event_of(row[: len(Event._fields)]) for row in rows}
    return list(found.values())
