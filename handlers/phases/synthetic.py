"""The synthetic event: a marked test event, used as the canary when the queue has no dead letter."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database import clock
from handlers.database.queries import queries
from handlers.database.sqlstate import message_of
from handlers.database.transaction import Bind, transaction
from handlers.queue.event import SYNTHETIC_KEY, EntityType, Operation
from handlers.queue.insert import insert_event

log = logging.getLogger(__name__)

_SQL = queries(__name__)
KEY = SYNTHETIC_KEY
"""The id of the product in synthetic events. It is inactive, and deleted after the canary."""

HEADER = "X-Runbook-Synthetic"


async def insert(tx: AsyncConnection, release_id: str) -> UUID:
    """Queue an update of the synthetic product; its headers and its name contain the release id."""
    return await _insert(tx, release_id, Operation.UPDATE)


async def remove(tx: AsyncConnection, release_id: str) -> UUID:
    """Queue a delete of the synthetic product, so that a worker soft-deletes its row in the ERP."""
    return await _insert(tx, release_id, Operation.DELETE)


async def withdraw(bind: Bind, release_id: str) -> int:
    """Take the test events of a release out of the queue, and return their number. What a worker has in hand stays.

    Where we may not delete, or the ERP's own logs name an event, they stay: nothing counts them.
    """
    values = {"release_id": release_id, "header": HEADER, "synthetic": KEY}
    try:
        async with transaction(bind) as tx, tx.begin_nested():
            # One after the other: the row of the inbox goes when nothing points to it.
            ids = (await tx.execute(_SQL["withdraw"], values)).scalars().all()
            await tx.execute(_SQL["forget"], {"ids": list(ids)})
            return len(ids)
    except DBAPIError as error:
        log.warning("the synthetic events of release %s stay in the queue: %s", release_id, message_of(error))
        return 0


def product(now: datetime, name: str) -> dict[str, object]:
    """The synthetic product as the source would send it, changed *now*: inactive, without a price or a stock."""
    return {
        "item_id": KEY,
        "name": name,
        "sku": KEY,
        "status": "inactive",
        # An ERP's own handlers may read only this flag, and would sell the product if it were missing.
        "is_active": False,
        "description": "",
        "rate": 0,
        "stock_on_hand": 0,
        "created_time": now.isoformat(timespec="milliseconds"),
        "last_modified_time": now.isoformat(timespec="milliseconds"),
    }


async def _insert(tx: AsyncConnection, release_id: str, operation: Operation) -> UUID:
    # By the one clock: with the controller's, the next release could write an older version than this one.
    now = await clock.now(tx)
    record = product(now, f"tds-runbook canary of release {release_id}")
    return await insert_event(
        tx,
        entity=EntityType.PRODUCT,
        key=KEY,
        # Flat, as the receivers store it: an ERP's handlers read item_id at the top level.
        payload_text=json.dumps(record),
        operation=operation,
        headers={HEADER: release_id},
    )
