"""The ERP's own workers next to ours: they apply events in any order, and store no version stamp.

If such a worker applied a newer event of a record first, our older event would overwrite its row: the row has no stamp
to compare. The queue tells the order. Newer events that others applied are folded into the row as if they were ours,
and our older event is superseded. While another worker still applies one, ours is retried later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.errors import TryAgain
from handlers.queue.event import ENTITY_TYPES, Event, Result, event_of
from handlers.queue.in_hand import OWNER_PATTERN
from handlers.worker.batch import Apply

_SQL = queries(__name__)


class RecordInUse(TryAgain):
    """Another worker is applying a newer event of the same record, a write race."""


def with_foreign_events(apply: Apply, owner: str) -> Apply:
    """Wrap *apply* so that an older event never overwrites a newer one that another worker applied."""

    async def apply_in_order(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        results = await apply(tx, events)
        newer = await _newer(tx, owner, events)
        if not newer:
            return results
        records = {(event.entity, event.key) for event in newer}
        outdated = [event for event in events if (event.entity, event.key) in records]
        combined = await apply(tx, [*outdated, *newer])
        return {**results, **{event.id: combined[event.id] for event in outdated}}

    return apply_in_order


async def _newer(tx: AsyncConnection, owner: str, events: Sequence[Event]) -> list[Event]:
    """Newer events of the same records that other workers applied. Raises RecordInUse while one is in progress."""
    ids = [event.id for event in events]
    rows = (
        await tx.execute(
            _SQL["newer_foreign"],
            {"ids": ids, "owner": owner, "ours": OWNER_PATTERN},
        )
    ).all()
    for row in rows:
        if row.in_hand:
            record = f"{ENTITY_TYPES[row.entity_type].value} {row.source_entity_id}"
            raise RecordInUse(f"{row.locked_by} is applying a newer event of {record}")
    # Their rows are not locked by us: one that is removed from the queue at this moment could not be copied from there.
    events_by_id = {row.id: event_of(row)._replace(is_queued=False) for row in rows}
    return list(events_by_id.values())
