"""A marked event of our own, for when there is nothing else to prove a revision on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.queue import redrive
from handlers.queue.event import EntityType, Operation

KEY = "tds-runbook-synthetic"
"""The one product that synthetic events speak of: inactive, and deleted again once it has served."""

HEADER = "X-Runbook-Synthetic"


async def insert(tx: AsyncConnection, release_id: str) -> UUID:
    """Put a synthetic product into the queue, marked with the release in its headers and its name."""
    return await _insert(tx, release_id, Operation.UPDATE)


async def remove(tx: AsyncConnection, release_id: str) -> UUID:
    """Delete the synthetic product at the source, so that the ERP's own row is deleted (softly) as well."""
    return await _insert(tx, release_id, Operation.DELETE)


async def _insert(tx: AsyncConnection, release_id: str, operation: Operation) -> UUID:
    now = datetime.now(UTC)
    record = {
        "item_id": KEY,
        "name": f"tds-runbook canary of release {release_id}",
        "sku": KEY,
        "status": "inactive",
        # ERPs with handlers of their own may ask for this one only, and would sell what they take for active.
        "is_active": False,
        "description": "",
        "rate": 0,
        "stock_on_hand": 0,
        "created_time": now.isoformat(timespec="milliseconds"),
        "last_modified_time": now.isoformat(timespec="milliseconds"),
    }
    return await redrive.insert_event(
        tx,
        entity=EntityType.PRODUCT,
        key=KEY,
        # Flat, as the queue's own receivers store it: an ERP's handlers look for item_id at the top.
        payload_text=json.dumps(record),
        operation=operation,
        headers={HEADER: release_id},
    )
