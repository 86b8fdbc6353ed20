"""A worker whose handler writes one small table, and what its tests ask about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.queue import look
from handlers.queue.event import Event, Outcome, Result, Status
from handlers.worker.batch import Apply
from handlers.worker.worker import Worker, new_owner

FAR = 3600.0


async def make_effect(engine: AsyncEngine) -> None:
    """The table that the handlers of these tests write: a row for each application, small numbers only."""
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "CREATE TABLE effect (event uuid NOT NULL, pid integer NOT NULL DEFAULT 0,"
                " key text NOT NULL DEFAULT '', n smallint NOT NULL DEFAULT 0 CHECK (n < 100),"
                " at bigint GENERATED ALWAYS AS IDENTITY)"
            )
        )


async def write(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
    """A set-based handler: one statement for the batch. Any key but a small number is refused there."""
    await tx.execute(
        text(
            "INSERT INTO effect (event, key, n) SELECT e, k, CAST(k AS smallint)"
            " FROM unnest(CAST(:events AS uuid[]), CAST(:keys AS text[])) AS r (e, k)"
        ),
        {"events": [each.id for each in events], "keys": [each.key for each in events]},
    )
    return {each.id: Result(outcome=Outcome.APPLIED, target=each.key) for each in events}


def worker(engine: AsyncEngine, apply: Apply = write, **settings: Any) -> Worker:
    """A worker of revision r1."""
    return Worker(engine, owner=new_owner("test"), revision="r1", apply=apply, **settings)


async def effects(engine: AsyncEngine) -> list[UUID]:
    """The events that were applied, as often and in the order as they were."""
    async with engine.connect() as tx:
        return list((await tx.execute(text("SELECT event FROM effect ORDER BY at"))).scalars())


async def statuses(engine: AsyncEngine, ids: Sequence[UUID]) -> list[Status]:
    """The statuses of the events, in the order of *ids*."""
    async with engine.connect() as tx:
        found = {state.id: state.status for state in await look.states(tx, ids)}
    return [found[id_] for id_ in ids]


async def until(true: Callable[[], Any], seconds: float = 10) -> float:
    """Wait until the condition holds; says how long it took."""
    began = time.monotonic()
    while not await true():
        assert time.monotonic() - began < seconds, "it did not come true in time"
        await asyncio.sleep(0.005)
    return time.monotonic() - began
