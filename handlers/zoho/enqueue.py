"""Putting what was read into the ERP's queue: as events of their own, behind the webhooks, and in bounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import uuid4

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.sqlstate import CONTENT, sqlstate
from handlers.entities.incoming import Incoming
from handlers.errors import TryAgain
from handlers.queue import background
from handlers.queue.insert import NewEvent, insert_new, lock_records
from handlers.zoho.runs import Run

_NO_LOCK = "55P03"


async def enqueue(tx: AsyncConnection, run: Run, records: Sequence[Incoming]) -> tuple[int, list[Incoming]]:
    """Write an event for each of *records* that says something new. Returns their number, and what cannot be stored.

    A webhook of the same content is the same event, so whatever came by itself meanwhile is not written again.
    """
    if not records:
        return 0, []
    try:
        await lock_records(tx, [(record.entity, record.key) for record in records])
    except DBAPIError as error:
        if sqlstate(error) == _NO_LOCK:
            raise TryAgain(
                "a receiver holds the records of this sync, and has not written them yet"
            ) from error
        raise
    return await _insert(tx, run, records)


async def _insert(tx: AsyncConnection, run: Run, records: Sequence[Incoming]) -> tuple[int, list[Incoming]]:
    headers = json.dumps({"x-runbook-sync": f"{run.kind} {run.id}"})
    events = [
        NewEvent(
            id=uuid4(),
            entity=record.entity,
            key=record.key,
            operation=record.operation,
            payload=record.payload,
            content=record.content,
            headers=headers,
            stamped=record.stamped,
            deduplicated=True,
        )
        for record in records
    ]
    try:
        async with tx.begin_nested():
            written = await insert_new(
                tx, events, source=background.SOURCE, priority=background.PRIORITY, once=True
            )
    except DBAPIError as error:
        if not (sqlstate(error) or "").startswith(CONTENT):
            raise
        if len(records) == 1:
            return 0, list(records)
        # One value that the database refuses does not keep the others out.
        middle = len(records) // 2
        first, refused = await _insert(tx, run, records[:middle])
        second, more = await _insert(tx, run, records[middle:])
        return first + second, refused + more
    return len(written), []
