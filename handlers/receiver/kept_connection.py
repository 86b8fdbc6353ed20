"""The writer's own connection: reused for each group, and replaced when it is dead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.sqlstate import is_away, is_connection_fault

Result = TypeVar("Result")


class KeptConnection:
    """One connection of *engine*, reused for consecutive transactions."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None

    async def transaction(self, work: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run *work* in a transaction. If a reused connection is dead or unusable, run it once more on a new one.

        *work* must be idempotent: the first run may have been committed before the connection broke.
        """
        reused = self._connection is not None
        try:
            return await self._once(work)
        except Exception as error:
            if not (reused and (is_away(error) or is_connection_fault(error))):
                raise
        return await self._once(work)

    async def close(self) -> None:
        """Return the connection to the pool."""
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
        except BaseException as error:
            if is_connection_fault(error):
                await connection.invalidate()
            # The pool checks whether the connection can be reused.
            await connection.close()
            raise
        self._connection = connection
        return result
