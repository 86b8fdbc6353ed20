"""A worker's heartbeat row: its process, its revision and its counts."""

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
    """The row of one worker. Without our ledger the worker still works, and logs that once."""

    engine: AsyncEngine
    owner: str
    revision: str
    _table_exists: bool | None = field(default=None, init=False)

    async def beat(self, tally: Tally) -> None:
        """Renew the row, with the outcomes of all events so far."""
        async with transaction(self.engine, raw_errors=True) as tx:
            if not self._table_exists:
                exists = bool((await tx.execute(_SQL["can_beat"])).scalar_one())
                if not exists and self._table_exists is None:
                    log.warning("no table runbook.worker in this database: working without a heartbeat")
                self._table_exists = exists
            if self._table_exists:
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
        """Record the clean shutdown of the worker."""
        if self._table_exists:
            await self.beat(tally)
            async with transaction(self.engine, raw_errors=True) as tx:
                await tx.execute(_SQL["stop"], {"owner": self.owner})
