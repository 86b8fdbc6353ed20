"""The writer's own connection: kept from one group to the next, and made anew when it is found to be dead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.sqlstate import is_away

Result = TypeVar("Result")


class KeptConnection:
    """One connection of *engine*, for one transaction after the other."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None

    async def transaction(self, work: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Do *work* in a transaction. On a kept connection that turns out to be dead it is done once more on a new one.

        That is harmless: *work* that was committed before the connection broke finds that it has been done.
        """
        kept = self._connection is not None
        try:
            return await self._once(work)
        except Exception as error:
            if not (kept and is_away(error)):
                raise
        return await self._once(work)

    async def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _once(self, work: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        connection, self._connection = self._connection, None
        if connection is None:
            connection = await self._engine.connect()
        try:
            async with connection.begin():
                result = await work(connection)
        except BaseException:
            # The pool looks whether it can be used again.
            await connection.close()
            raise
        self._connection = connection
        return result
