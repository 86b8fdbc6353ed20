"""Events that webhooks do not wait for: what a sync has read is claimed after everything that came by itself."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries

PRIORITY = 7
"""Behind the 5 of a receiver. The ERP allows 1 to 10."""
SOURCE = "reconciliation"
"""Of the ERP's `tds_source_type`: read by us, not sent to us."""

_SQL = queries(__name__)


async def waiting(tx: AsyncConnection, at_most: int) -> int:
    """How many such events no worker has taken yet; counted up to *at_most*."""
    number: int = (await tx.execute(_SQL["waiting"], {"priority": PRIORITY, "at_most": at_most})).scalar_one()
    return number
