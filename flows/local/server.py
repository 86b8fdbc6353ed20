"""A Prefect server on loopback: its settings, its start, and a temporary one for a single run.

Nothing here imports Prefect: it reads its settings on import, so the settings must be set first.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from importlib.metadata import version
from pathlib import Path

import httpx

from flows.local import process
from flows.local.process import Process
from handlers.errors import RunbookError
from handlers.state_folder import private_folder

START_SECONDS = 120.0
"""A timeout for a start that hangs. The slowest start measured, on a busy machine, took 19 s."""


def prefect_settings(state: Path, api_url: str) -> dict[str, str]:
    """The environment variables of a process that uses the server at *api_url*; *state* is its folder."""
    return {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(state),
        # No analytics leave the machine. The server reads only the first variable, the client only the second.
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # Without an address Prefect would silently start a server with a private database.
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        # Concurrency leases in memory are lost with the server; minutes later healthy runs are cancelled.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # A schedule runs each minute. The ledger keeps the releases; the page keeps the runs of two days.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "172800",
        "PREFECT_CLIENT_MAX_RETRIES": "7",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "30",
        "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "handlers",
    }


def child_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment with *settings* and no other Prefect variable: a stray one could change the database."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return ours | dict(settings)


@asynccontextmanager
async def temporary_server(folder: Path, *, template: Path | None = None) -> AsyncIterator[str]:
    """Run a server with all its files in *folder*; yields its API address. The server stops at the end.

    Creating the database takes more than half of the start. An empty database for each Prefect version is therefore
    kept in the folder *template*, and copied for the next server.
    """
    empty = template / f"prefect-{version('prefect')}.db" if template is not None else None
    database = _create_database(folder, empty)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        api_url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        settings = prefect_settings(folder, api_url) | {"PREFECT_SERVER_UI_ENABLED": "false"}
        server = await process.start(
            server_command(listening, "--api-only"),
            environment=child_environment(settings),
            log=folder / "server.log",
            ends_with_us=True,
            listening=listening.fileno(),
        )
    try:
        await until_ready(server, api_url)
        _save_template(database, empty)
        yield api_url
    finally:
        await server.stop()


def server_command(listening: socket.socket, *options: str) -> list[str]:
    """The command that starts a server on the socket *listening*."""
    return [sys.executable, "-m", "flows.local.serving", str(listening.fileno()), *options]


async def until_ready(server: Process, api_url: str) -> None:
    """Wait until the server is healthy. Raises RunbookError when its process ends or START_SECONDS pass."""
    async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await _is_healthy(http, api_url):
                    if server.process.returncode is not None:
                        output = process.last_lines(server.log)
                        raise RunbookError(f"the Prefect server ended while starting: {output}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            limit = f"{START_SECONDS:.0f} s"
            raise RunbookError(f"the Prefect server did not answer in {limit}: see {server.log}") from None


async def is_reachable(api_url: str) -> bool:
    """Whether any HTTP server answers at *api_url*, with any status: it may require a login."""
    try:
        async with httpx.AsyncClient(timeout=5) as http:
            await http.get(f"{api_url}/health")
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return True


async def _is_healthy(http: httpx.AsyncClient, api_url: str) -> bool:
    try:
        return (await http.get(f"{api_url}/health")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _create_database(folder: Path, empty: Path | None) -> Path:
    private_folder(folder)
    database = folder / "prefect.db"
    if empty is not None and empty.is_file() and not database.exists():
        _copy(empty, database)
    return database


def _save_template(database: Path, empty: Path | None) -> None:
    if empty is not None and not empty.exists():
        private_folder(empty.parent)
        _copy(database, empty)


def _copy(source: Path, target: Path) -> None:
    """Copy a SQLite database that may be in use. The rename is atomic, so other processes never see a part of it."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(temporary)) as copy:
        original.backup(copy)
    temporary.replace(target)
