"""Engines on the environment's database: one way to make them, with named settings for who uses them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.environment.model import Database

_CUSTOM_PLANS = {"plan_cache_mode": "force_custom_plan"}
"""A claim has a limit. A generic plan, made for any limit, would read the whole queue."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How a process uses the database. Times are seconds."""

    application_name: str
    """What pg_stat_activity shows."""
    pool_size: int
    connect_seconds: float
    statement_seconds: float
    pool_seconds: float = 30
    """How long a caller waits for a free connection."""
    pre_ping: bool = True
    """Whether a connection is tried before each use. That costs three messages each time."""
    hide_parameters: bool = True
    """Keeps the customers' values out of error texts."""
    server: dict[str, str] = field(default_factory=dict)
    """Settings of the server session, beside the time zone."""


def make_engine(url: str | URL, settings: EngineSettings) -> AsyncEngine:
    """An engine on *url*, by SQLAlchemy over asyncpg, in UTC."""
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.pool_seconds,
        pool_pre_ping=settings.pre_ping,
        hide_parameters=settings.hide_parameters,
        connect_args={
            "timeout": settings.connect_seconds,
            "command_timeout": settings.statement_seconds,
            "server_settings": {
                "application_name": settings.application_name,
                "timezone": "UTC",
                **settings.server,
            },
        },
    )


def controller_engine(database: Database) -> AsyncEngine:
    """The engine of a controller or a command, with the environment's own limits."""
    settings = EngineSettings(
        application_name="tds-runbook",
        pool_size=database.pool_size,
        connect_seconds=database.connect_seconds,
        statement_seconds=database.statement_seconds,
        hide_parameters=False,
        # Events that are applied inline are claimed on this engine.
        server=_CUSTOM_PLANS,
    )
    return make_engine(database.sqlalchemy_url(), settings)


def worker_engine(url: str | URL, *, lease_seconds: float = 300) -> AsyncEngine:
    """The engine of one worker: a connection for each batch in hand, and one to listen on.

    No pre-ping: for a single event it would be a third of all messages. A worker that finds its database away waits
    and goes on, whatever it was about to do.
    """
    settings = EngineSettings(
        application_name="tds-worker",
        pool_size=3,
        pool_seconds=5,
        connect_seconds=5,
        statement_seconds=lease_seconds,
        pre_ping=False,
        server={
            **_CUSTOM_PLANS,
            # A worker that is stopped, or whose machine is gone, must not keep its rows locked beyond its lease.
            "idle_in_transaction_session_timeout": str(round(lease_seconds * 1000)),
        },
    )
    return make_engine(url, settings)


def receiver_engine(database: Database) -> AsyncEngine:
    """A small pool whose waits are all shorter than the time in which the source wants an answer."""
    settings = EngineSettings(
        application_name="tds-receiver",
        pool_size=3,
        pool_seconds=3,
        connect_seconds=3,
        statement_seconds=4,
        # Plans are cached: one made while the tables were empty would scan them sequentially ever after.
        server={"enable_seqscan": "off"},
    )
    return make_engine(database.sqlalchemy_url(), settings)
