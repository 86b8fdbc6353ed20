"""Wake a worker when events arrive, with LISTEN/NOTIFY. Polling remains the fallback: this only saves the wait.

The same connection shows that the worker lives (`in_hand.live`): it ends with the process, whatever ended that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.sqlstate import DRIVER_ERRORS
from handlers.errors import LoginRefused
from handlers.queue import in_hand
from handlers.queue.redrive import CHANNEL

log = logging.getLogger(__name__)

_RECONNECT_SECONDS = 1.0


async def listen(engine: AsyncEngine, wake: asyncio.Event, owner: str) -> None:
    """Set *wake* whenever a transaction that adds events commits. Reconnects after a lost connection."""
    while True:
        try:
            await _listen(engine, wake, owner)
        except (*DRIVER_ERRORS, LoginRefused) as error:
            log.debug("not listening: %s", type(error).__name__)
        await asyncio.sleep(_RECONNECT_SECONDS)


async def _listen(engine: AsyncEngine, wake: asyncio.Event, owner: str) -> None:
    """Listen on one connection until it is lost."""
    lost = asyncio.Event()

    def notified(*_: object) -> None:
        wake.set()

    def terminated(*_: object) -> None:
        lost.set()

    async with engine.connect() as connection:
        # Outside a transaction: a notification is not delivered while one is open.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await in_hand.live(connection, owner)
        driver: Any = (await connection.get_raw_connection()).driver_connection
        driver.add_termination_listener(terminated)
        try:
            await driver.add_listener(CHANNEL, notified)
            wake.set()  # for events committed before LISTEN began
            await lost.wait()
        finally:
            driver.remove_termination_listener(terminated)
            if driver.is_closed():
                await connection.invalidate()
            else:
                await driver.remove_listener(CHANNEL, notified)
                await in_hand.ended(connection, owner)
