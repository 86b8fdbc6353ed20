"""How a worker is connected to the queue's database."""

from __future__ import annotations

import gc

from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

_NEW_OBJECTS = 50_000
"""A batch of events is some hundred thousand objects, none of them in a circle."""


def tune_garbage_collector() -> None:
    """Let Python look for circular garbage seldom: in a process that does nothing but read payloads it is 7 % of all.

    What is there already lives as long as the process, and is left out for good.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 50)


def make_engine(database_url: str | URL, *, lease_seconds: float = 300) -> AsyncEngine:
    """The engine of one worker: a connection for each batch in hand, and one to listen on.

    Connections are not tried before each use, which costs three messages each time, a third of all for a single event:
    a worker that finds its database gone waits a moment and goes on, whatever it was about to do.
    """
    return create_async_engine(
        make_url(database_url).set(drivername="postgresql+asyncpg"),
        pool_size=3,
        max_overflow=0,
        pool_timeout=5,
        hide_parameters=True,
        connect_args={
            "timeout": 5,
            "command_timeout": lease_seconds,
            # A plan made for any limit reads the whole queue; one made for this limit reads its beginning.
            "server_settings": {
                "application_name": "tds-worker",
                "timezone": "UTC",
                "plan_cache_mode": "force_custom_plan",
                # A worker that is stopped, or whose machine is gone, must not keep its rows locked beyond its lease.
                "idle_in_transaction_session_timeout": str(round(lease_seconds * 1000)),
            },
        },
    )
