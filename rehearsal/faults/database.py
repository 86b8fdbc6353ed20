"""Faults of the database server."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from rehearsal.faults.fault import Fault
from rehearsal.faults.world import World
from rehearsal.hosts.host import RehearsalHost
from rehearsal.postgres import Postgres
from rehearsal.running import in_thread

_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'erp' AND pid <> pg_backend_pid()"
)


@asynccontextmanager
async def away(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Shut the server down, with its connections, and start it again."""
    del fault, host
    async with _stopped(world.target.server, signal.SIGINT):
        yield


@asynccontextmanager
async def crash(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Stop the server at once, without a checkpoint; it recovers when it is started again."""
    del fault, host
    async with _stopped(world.target.server, signal.SIGQUIT):
        yield


@asynccontextmanager
async def _stopped(server: Postgres, how: signal.Signals) -> AsyncIterator[None]:
    await in_thread(lambda: server.stop(how))
    try:
        yield
    finally:
        # From this thread: a tied server ends with the thread that started it.
        server.spawn()
        await in_thread(lambda: server.wait_ready(fresh=False))


@asynccontextmanager
async def readonly(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Refuse every write, as a server does that is not the primary any more. Connections break, as they do then."""
    del fault, host
    url = world.target.server.url()
    await _set(url, "on")
    try:
        yield
    finally:
        await _set(url, "off")


@asynccontextmanager
async def login_refused(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Refuse the login of the ERP and of the runbook, and end their connections."""
    del fault, host
    url = world.target.server.url()
    await _execute(url, "ALTER ROLE erp NOLOGIN", _OTHERS)
    try:
        yield
    finally:
        await _execute(url, "ALTER ROLE erp LOGIN")


async def _set(url: str, value: str) -> None:
    await _execute(
        url,
        f"ALTER SYSTEM SET default_transaction_read_only = {value}",
        "SELECT pg_reload_conf()",
        _OTHERS,
    )


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url, server_settings={"default_transaction_read_only": "off"})
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
