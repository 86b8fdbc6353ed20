"""Waiting for a moment in the course of a release, from outside: by reading its ledger fifty times a second."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.queries import queries
from handlers.database.sqlstate import DRIVER_ERRORS
from rehearsal.faults.fault import Moment

SQL = queries(__name__)
POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Reached:
    """A moment that has come, and the host that it is about."""

    host: str | None


class Moments:
    """Reads the ledger for everybody who waits, through a connection of its own."""

    def __init__(self, engine: AsyncEngine, release_id: str) -> None:
        self._engine = engine
        self._values = {"release_id": release_id}
        self._waiting: list[tuple[Moment, asyncio.Future[Reached]]] = []

    async def reached(self, moment: Moment) -> Reached:
        """Wait until the phase was entered or the operation intended, then for the delay."""
        came: asyncio.Future[Reached] = asyncio.get_running_loop().create_future()
        self._waiting.append((moment, came))
        reached = await came
        await asyncio.sleep(moment.delay_seconds)
        return reached

    async def watch(self) -> None:
        """Read until cancelled. While the database is away no moment comes."""
        while True:
            with contextlib.suppress(*DRIVER_ERRORS):
                async with self._engine.connect() as plain:
                    connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
                    while True:
                        await self._look(connection)
                        await asyncio.sleep(POLL_SECONDS)
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self, connection: AsyncConnection) -> None:
        if not self._waiting:
            return
        entered = {row.name for row in await connection.execute(SQL["entered"], self._values)}
        operations = [
            (row.name, row.host) for row in await connection.execute(SQL["operations"], self._values)
        ]
        for moment, came in list(self._waiting):
            reached = _reached(moment, entered, operations)
            if reached is not None and not came.done():
                came.set_result(reached)
                self._waiting.remove((moment, came))


def _reached(moment: Moment, entered: set[str], operations: list[tuple[str, str]]) -> Reached | None:
    if moment.operation is None:
        return Reached(host=moment.host) if moment.name in entered else None
    hosts = [host for name, host in operations if name == moment.operation]
    wanted = [host for host in hosts if moment.host in (None, host)]
    return Reached(host=wanted[0]) if wanted else None
