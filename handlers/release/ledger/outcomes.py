"""How the releases of an environment have ended, counted."""

from __future__ import annotations

from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.release.phase import Phase

SQL = queries(__name__)


async def outcomes(bind: Bind, environment: str) -> dict[Phase, int]:
    """How many releases of an environment are in each phase; a phase without one has 0."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["outcomes"], {"environment": environment})
        return dict.fromkeys(Phase, 0) | {Phase(row.phase): row.releases for row in rows}
