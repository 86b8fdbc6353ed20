"""What a worker does with which table, for the check of its privileges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from handlers.database.privileges import Need, obstacles
from handlers.database.transaction import Bind
from handlers.entities.base import Handlers
from handlers.entities.registry import HANDLERS
from handlers.entities.statements import SYNC_COLUMNS
from handlers.errors import DatabaseDown, Refused

QUEUE_NEEDS = (
    Need(table="tds_sync_queue", privileges="SELECT UPDATE"),
    # A completion closes the row of a redriven event.
    Need(table="tds_dead_letter_queue", privileges="SELECT UPDATE"),
    # Without the ledger a worker has no heartbeat and no limits.
    Need(table="runbook.worker", privileges="SELECT INSERT UPDATE", optional=True),
    Need(table="runbook.intake", privileges="SELECT UPDATE", optional=True),
)


def needs(handlers: Handlers = HANDLERS) -> tuple[Need, ...]:
    """The queue, the ledger's tables, and every table that the handlers write, with its columns."""
    return (*QUEUE_NEEDS, *_entity_tables(handlers))


def _entity_tables(handlers: Handlers) -> Iterator[Need]:
    for handler in handlers.values():
        table = handler.table
        names = (table.key, *(column.name for column in table.columns), *(name for name, _ in SYNC_COLUMNS))
        yield Need(table=table.name, privileges="SELECT INSERT UPDATE", columns=(*names, "updated_at"))
        for child in table.children:
            lines = (child.link, *(column.name for column in child.columns))
            # Lines are replaced, never updated.
            yield Need(table=child.name, privileges="SELECT INSERT DELETE", columns=lines)


async def raise_if_denied(bind: Bind, needs: Sequence[Need]) -> None:
    """Raise Refused when this user may not do what a worker does, and DatabaseDown for a read-only database.

    A queue that is hidden by row security would be an empty one, and without the right to write a table every event of
    it would become a dead letter.
    """
    found = await obstacles(bind, needs)
    if found.denied:
        raise Refused(f"the worker cannot work: {found.sentence()}")
    if found.read_only:
        raise DatabaseDown(found.read_only)
