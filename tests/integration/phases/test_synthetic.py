"""The synthetic event must be one that any worker of the queue can apply, not only ours."""

from __future__ import annotations

import json
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.entities.compare import expected
from handlers.entities.registry import HANDLERS
from handlers.phases import synthetic
from handlers.queue.event import EntityType


async def test_a_synthetic_event_lies_flat_in_the_queue(engine: AsyncEngine) -> None:
    """An ERP's own handlers read item_id at the top of the payload, and take a product without is_active for active."""
    async with engine.begin() as tx:
        event_id = await synthetic.insert(tx, "2026-11-25.1")
        payload = (
            await tx.execute(
                text("SELECT validated_payload FROM tds_sync_queue WHERE id = :id"), {"id": event_id}
            )
        ).scalar_one()
    assert payload["item_id"] == synthetic.KEY
    assert payload["is_active"] is False


async def test_our_core_takes_it_as_well(engine: AsyncEngine) -> None:
    """The same flat form, read by our own mapping: one inactive product."""
    async with engine.begin() as tx:
        await synthetic.insert(tx, "2026-11-25.1")
        stored = (
            await tx.execute(text("SELECT CAST(validated_payload AS text) FROM tds_sync_queue"))
        ).scalar_one()
    row = expected(HANDLERS[EntityType.PRODUCT], json.loads(stored, parse_float=Decimal))
    assert (row["zoho_item_id"], row["is_active"]) == (synthetic.KEY, "false")
