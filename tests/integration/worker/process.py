"""A worker process for tests to kill: its handler writes one row an event, slowly, in one transaction."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.queue.event import Event, Outcome, Result
from handlers.worker import service


async def slowly(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
    """Count each event in the table `effect`, with a pause on the server after each."""
    for event in events:
        await tx.execute(
            text("INSERT INTO effect (event, pid) SELECT :event, pg_backend_pid() FROM pg_sleep(:seconds)"),
            {"event": event.id, "seconds": float(sys.argv[2])},
        )
    return {event.id: Result(outcome=Outcome.APPLIED, target=event.key) for event in events}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asyncio.run(
        service.serve(
            sys.argv[1],
            revision="r1",
            apply=slowly,
            owner="process",
            batch_size=int(sys.argv[3]),
            lease_seconds=float(sys.argv[4]),
            poll_seconds=0.2,
        )
    )
