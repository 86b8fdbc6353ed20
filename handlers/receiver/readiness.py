"""The health check of the receiver: the database answers, and webhooks may be written to the queue's tables."""

from __future__ import annotations

import asyncio
import logging
import time
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.privileges import Need, obstacles
from handlers.database.queries import queries

log = logging.getLogger(__name__)

_SQL = queries(__name__)
_TIMEOUT_SECONDS = 2.0
_CACHE_SECONDS = 1.0
"""The result is cached for this time, so that health checks do not take connections from the writer."""

NEEDS = (
    # A webhook that came before is recognized.
    Need(table="tds_inbox_events", privileges="SELECT INSERT"),
    Need(table="tds_sync_queue", privileges="SELECT INSERT"),
)


class DatabaseState(StrEnum):
    """The state of the database at the last check."""

    UP = "up"
    DOWN = "down"
    WITHOUT_QUEUE = "without the queue's tables"
    NOT_WRITABLE = "not writable"


class HealthCheck:
    """Checks one database; one check at a time."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._lock = asyncio.Lock()
        self._state = DatabaseState.DOWN
        self._checked_at = float("-inf")
        self.reason = ""
        """Why webhooks cannot be written, in one sentence; empty when they can, or when the database is down."""

    async def check(self) -> DatabaseState:
        """The state of the database, at most one second old."""
        async with self._lock:
            if time.monotonic() - self._checked_at > _CACHE_SECONDS:
                self._state = await self._query()
                self._checked_at = time.monotonic()
            return self._state

    async def _query(self) -> DatabaseState:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS), self._engine.connect() as tx:
                tables_exist = (await tx.execute(_SQL["can_receive"])).scalar_one()
                reason = (await obstacles(tx, NEEDS)).sentence()
        except Exception as error:  # any error means: not ready
            log.warning("the database does not answer: %s", type(error).__name__)
            self.reason = ""
            return DatabaseState.DOWN
        if reason and reason != self.reason:
            log.warning("webhooks cannot be stored: %s", reason)
        self.reason = reason
        if not tables_exist:
            return DatabaseState.WITHOUT_QUEUE
        return DatabaseState.NOT_WRITABLE if reason else DatabaseState.UP
