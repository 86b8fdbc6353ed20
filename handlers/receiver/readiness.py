"""Whether the receiver can do its work: the database answers, and has the queue's tables."""

from __future__ import annotations

import asyncio
import logging
import time
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.queries import queries

log = logging.getLogger(__name__)

_SQL = queries(__name__)
_LOOK_SECONDS = 2.0
_FRESH_SECONDS = 1.0
"""Whoever asks more often gets the last answer, so that asking never takes the connections from writing."""


class Database(StrEnum):
    """How the database was when somebody last looked."""

    UP = "up"
    DOWN = "down"
    WITHOUT_QUEUE = "without the queue's tables"


class Health:
    """Looks at one database, one look at a time."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._looking = asyncio.Lock()
        self._found = Database.DOWN
        self._found_at = float("-inf")

    async def look(self) -> Database:
        """How the database is, or was a moment ago."""
        async with self._looking:
            if time.monotonic() - self._found_at > _FRESH_SECONDS:
                self._found = await self._look()
                self._found_at = time.monotonic()
            return self._found

    async def _look(self) -> Database:
        try:
            async with asyncio.timeout(_LOOK_SECONDS), self._engine.connect() as tx:
                there = (await tx.execute(_SQL["can_receive"])).scalar_one()
        except Exception as error:  # whatever it is, the answer is no
            log.warning("the database does not answer: %s", type(error).__name__)
            return Database.DOWN
        return Database.UP if there else Database.WITHOUT_QUEUE
