"""Hearing at once that work has come. Who hears nothing looks every second: this only saves the wait."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.queue.redrive import CHANNEL

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0


async def listen(engine: AsyncEngine, wake: asyncio.Event) -> None:
    """Set *wake* whenever a transaction that adds work commits. Lost connections do not end it."""
    while True:
        try:
            await _listen(engine, wake)
        except (OSError, SQLAlchemyError) as error:
            log.debug("not listening: %s", type(error).__name__)
        await asyncio.sleep(_AGAIN_SECONDS)


async def _listen(engine: AsyncEngine, wake: asyncio.Event) -> None:
    """Listen on one connection until it is lost."""
    lost = asyncio.Event()

    def heard(*_: object) -> None:
        wake.set()

    def ended(*_: object) -> None:
        lost.set()

    async with engine.connect() as connection:
        # Outside a transaction: a notification is not delivered while one is open.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        driver: Any = (await connection.get_raw_connection()).driver_connection
        driver.add_termination_listener(ended)
        try:
            await driver.add_listener(CHANNEL, heard)
            wake.set()  # for what was committed before we began to listen
            await lost.wait()
        finally:
            driver.remove_termination_listener(ended)
            if driver.is_closed():
                await connection.invalidate()
            else:
                await driver.remove_listener(CHANNEL, heard)
