"""SQLAlchemy engines on the environment's database, with different settings for controller, worker and receiver."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.database.dial import dial
from handlers.database.transaction import transaction
from handlers.environment.address import Address, parse
from handlers.environment.model import Database
from handlers.errors import DatabaseDown

log = logging.getLogger(__name__)

_CUSTOM_PLANS = {"plan_cache_mode": "force_custom_plan"}
"""force_custom_plan: for a claim with LIMIT, the generic plan scans the whole queue, a custom plan only its start."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """The settings of an engine. Times are seconds."""

    application_name: str
    """The name in pg_stat_activity."""
    pool_size: int
    connect_seconds: float
    """For each host of the address, unless it has a connect_timeout of its own."""
    statement_seconds: float
    connect_seconds_max: float = 3600
    """The limit for the address's own connect_timeout."""
    pool_seconds: float = 30
    """How long a caller waits for a free connection."""
    pre_ping: bool = True
    """Whether a connection is tested at each checkout, which costs three round-trip messages."""
    hide_parameters: bool = True
    """Whether error texts omit the parameters, which may be customer data."""
    server: dict[str, str] = field(default_factory=dict)
    """More settings of the server session (the time zone is always UTC)."""


Place = Database | Address | str
"""Where a database is. Of the settings the password is read for each connection, so that a rotated one works."""


def make_engine(place: Place, settings: EngineSettings) -> AsyncEngine:
    """An engine on *place* with asyncpg, in UTC. Raises ValueError for an address that is not understood."""
    address = _address(place)
    server = {
        "application_name": address.application_name or settings.application_name,
        "timezone": "UTC",
        **settings.server,
    }
    if address.options is not None:
        # What we set ourselves wins over the same setting in the options.
        server["options"] = address.options
    return create_async_engine(
        _url(address),
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.pool_seconds,
        pool_pre_ping=settings.pre_ping,
        hide_parameters=settings.hide_parameters,
        async_creator=lambda: dial(
            _address(place),
            connect_seconds=min(
                address.connect_seconds or settings.connect_seconds, settings.connect_seconds_max
            ),
            statement_seconds=settings.statement_seconds,
            server_settings=server,
        ),
    )


def _address(place: Place) -> Address:
    if isinstance(place, Database):
        return place.address()
    return parse(place) if isinstance(place, str) else place


async def raise_if_impossible(engine: AsyncEngine) -> None:
    """Connect once before a service starts. Raises Refused when no retry can help: wrong TLS, login or database.

    A database that is only away is logged: the service waits for it.
    """
    try:
        async with transaction(engine):
            pass
    except DatabaseDown as error:
        log.warning("starting, although %s", error)


def _url(address: Address) -> URL:
    """The address for messages: the connections themselves are made by `dial`."""
    host, port = address.hosts[0]
    url = URL.create("postgresql+asyncpg", address.user, address.password, database=address.database)
    if len(address.hosts) > 1:
        return url.update_query_dict({"host": tuple(f"{host}:{port}" for host, port in address.hosts)})
    if host.startswith("/"):
        return url.update_query_dict({"host": host, "port": str(port)})
    return url.set(host=host, port=port)


def controller_engine(database: Database) -> AsyncEngine:
    """The engine of a controller or a command, with the limits of the environment file."""
    settings = EngineSettings(
        application_name="tds-runbook",
        pool_size=database.pool_size,
        connect_seconds=database.connect_seconds,
        statement_seconds=database.statement_seconds,
        hide_parameters=False,
        # With execution = "inline" the controller claims events on this engine.
        server=_CUSTOM_PLANS,
    )
    return make_engine(database, settings)


def worker_engine(place: Place, *, lease_seconds: float = 300) -> AsyncEngine:
    """The engine of one worker: a connection for each batch in progress, one to note them, and one for LISTEN.

    No pre-ping: for a single event it would be a third of all messages. On a lost connection the worker waits and
    retries, at any point.
    """
    settings = EngineSettings(
        application_name="tds-worker",
        pool_size=4,
        pool_seconds=5,
        connect_seconds=5,
        statement_seconds=lease_seconds,
        pre_ping=False,
        server={
            **_CUSTOM_PLANS,
            # A worker that is suspended, or whose machine is down, must not keep its rows locked beyond its lease.
            "idle_in_transaction_session_timeout": str(round(lease_seconds * 1000)),
        },
    )
    return make_engine(place, settings)


def board_engine(database: Database) -> AsyncEngine:
    """The engine of the board: read-only, few connections, and one moment for all that a transaction reads."""
    settings = EngineSettings(
        application_name="tds-board",
        pool_size=3,
        pool_seconds=5,
        connect_seconds=database.connect_seconds,
        connect_seconds_max=5,
        statement_seconds=min(database.statement_seconds, 15),
        server={"default_transaction_read_only": "on"},
    )
    engine = make_engine(database, settings)
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def receiver_engine(database: Database) -> AsyncEngine:
    """The engine of the receiver: all timeouts are shorter than the one of the webhook's sender."""
    settings = EngineSettings(
        application_name="tds-receiver",
        pool_size=3,
        pool_seconds=3,
        connect_seconds=3,
        connect_seconds_max=3,
        statement_seconds=4,
        # Plans are cached: a plan made while the tables were empty would be a sequential scan permanently.
        server={"enable_seqscan": "off"},
    )
    return make_engine(database, settings)
