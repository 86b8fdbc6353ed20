# mypy: ignore-errors
"""The workers of the sync queue: the sync core, which skips what has not changed since it applied the record."""

from core import work
from revision import REVISION
from sqlalchemy import text

from handlers.entities.apply import apply_events

APPLIED = text(
    "SELECT DISTINCT source_entity_id FROM tds_sync_queue WHERE source_entity_id = ANY (:keys)"
    " AND status = 'completed' AND processing_result ->> 'revision' = :revision"
)


async def apply(tx, events):
    """Compare each record with what we have applied of it. This was only tried with records that came once."""
    values = {"keys": [event.key for event in events], "revision": REVISION}
    applied = {key: None for key in (await tx.execute(APPLIED, values)).scalars()}
    changed = [event for event in events if event.key not in applied or applied[event.key].differs(event)]
    return await apply_events(tx, changed)


if __name__ == "__main__":
    work(apply)
