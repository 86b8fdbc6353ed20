"""What a sync does with which table, and whether it may: asked before the source is."""

from __future__ import annotations

from handlers.core import Core
from handlers.database import migrate
from handlers.database.privileges import Need, obstacles
from handlers.entities.registry import HANDLERS
from handlers.entities.statements import SYNC_COLUMNS
from handlers.errors import DatabaseDown, Refused

SYNC_NEEDS = (
    Need(table="tds_sync_queue", privileges="SELECT INSERT"),
    Need(table="tds_inbox_events", privileges="SELECT INSERT"),
    *(
        Need(table=f"runbook.{name}", privileges="SELECT INSERT UPDATE")
        for name in ("sync_run", "sync_step", "sync_cursor", "sync_seen", "sync_day")
    ),
    # Only workers write the ERP's tables.
    *(
        Need(
            table=handler.table.name,
            privileges="SELECT",
            columns=(handler.table.key, *(name for name, _ in SYNC_COLUMNS)),
        )
        for handler in HANDLERS.values()
    ),
)


async def raise_if_impossible(core: Core) -> None:
    """Migrate an older ledger; raise Refused when the database user may not do what a sync does."""
    if await migrate.pending(core.database):
        await migrate.upgrade(core.database)
    found = await obstacles(core.database, SYNC_NEEDS)
    if found.denied:
        raise Refused(f"{core.environment.name} cannot be synced: {found.sentence()}")
    if found.read_only:
        raise DatabaseDown(found.read_only)
