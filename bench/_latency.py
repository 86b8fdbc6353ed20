"""How long one event waits on an idle queue."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import _load
import asyncpg
from _place import clients_ready, say
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from handlers.queue import insert

_PAUSE_SECONDS = 0.05
_GIVE_UP_SECONDS = 10.0


async def latency(url: str, *, events: int) -> list[float]:
    """Seconds from the commit of each event to the moment when others see it completed."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    connection = await asyncpg.connect(url)
    took = []
    try:
        async with clients_ready(url, [{"what": "worker"}], events) as processes:
            say(processes[0])
            await asyncio.sleep(2)
            for kind, key, payload in _load.products(events):
                async with engine.begin() as tx:
                    id_ = await insert.insert_event(tx, entity=kind, key=key, payload_text=payload)
                took.append(await _until_completed(connection, id_))
                await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        await connection.close()
        await engine.dispose()
    return took


async def _until_completed(connection: asyncpg.Connection, id_: UUID) -> float:
    began = time.perf_counter()
    while time.perf_counter() - began < _GIVE_UP_SECONDS:
        if await connection.fetchval("SELECT status = 'completed' FROM tds_sync_queue WHERE id = $1", id_):
            return time.perf_counter() - began
    raise TimeoutError(f"event {id_} was not completed within {_GIVE_UP_SECONDS:.0f} s")
