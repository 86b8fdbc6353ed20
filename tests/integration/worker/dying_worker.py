"""A worker process that is killed after the commit of its first batch, before it can wake children."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.queue.event import Event
from handlers.worker import service
from handlers.worker.batch import Settler

_as_it_is = Settler._apply


async def _held_up(self: Settler, tx: AsyncConnection, events: Sequence[Event]) -> Any:
    """Apply, and hold the transaction open for as long as the test has the lock."""
    done = await _as_it_is(self, tx, events)
    await tx.execute(text("SELECT pg_advisory_xact_lock(4242)"))
    return done


async def _killed(self: Settler, done: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Settler._apply = _held_up  # type: ignore[method-assign]
    Settler._wake = _killed  # type: ignore[method-assign]
    asyncio.run(service.serve(sys.argv[1], revision="r1", owner="dying", poll_seconds=0.1))
