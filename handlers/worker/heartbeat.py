"""A worker's row in our own table: that it lives, what it runs, what it has done."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.worker.isolate import Tally

log = logging.getLogger(__name__)

_SQL = queries(__name__)


@dataclass(kw_only=True)
class Heartbeat:
    """The row of one worker. A database without our ledger is no reason not to work, and is said once."""

    engine: AsyncEngine
    owner: str
    revision: str
    _table_there: bool | None = field(default=None, init=False)

    async def beat(self, tally: Tally) -> None:
        """Renew the row, with what has become of all events so far."""
        async with transaction(self.engine, raw_errors=True) as tx:
            if not self._table_there:
                there = bool((await tx.execute(_SQL["can_beat"])).scalar_one())
                if not there and self._table_there is None:
                    log.warning("there is no table runbook.worker: working without a heartbeat")
                self._table_there = there
            if self._table_there:
                values = {
                    "owner": self.owner,
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "revision": self.revision,
                    "applied": tally["applied"] + tally["superseded"],
                    "failed": tally["retry"] + tally["dead_letter"],
                }
                await tx.execute(_SQL["beat"], values)

    async def stop(self, tally: Tally) -> None:
        """Say that the worker has ended of its own will."""
        if self._table_there:
            await self.beat(tally)
            async with transaction(self.engine, raw_errors=True) as tx:
                await tx.execute(_SQL["stop"], {"owner": self.owner})
