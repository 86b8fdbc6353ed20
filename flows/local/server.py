"""A Prefect server of our own on loopback: its settings, its start, and a throw-away one for a single run.

Nothing here imports Prefect: it reads its settings on import, so whoever runs a flow sets them first.
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

START_SECONDS = 120.0
"""A first start on a busy machine took 19 s; this only ends one that hangs."""


def prefect_settings(state: Path, api_url: str) -> dict[str, str]:
    """The environment for every process that talks to the server at *api_url*, whose files lie in *state*."""
    return {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(state),
        # Nothing leaves the machine: the server obeys the first switch only, the client only the second.
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # Without an address Prefect would quietly open a private database that nobody ever sees.
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        # Leases in memory die with the server, and minutes later take healthy runs with them.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_CLIENT_MAX_RETRIES": "7",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "30",
        "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "handlers",
    }


def child_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment with *settings* and no other Prefect setting: a stray one would move the database."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return ours | dict(settings)


@asynccontextmanager
async def temporary_server(folder: Path, *, template: Path | None = None) -> AsyncIterator[str]:
    """Run a server with all its files in *folder*, give its API address, and end it afterwards.

    Making the database is more than half of the start. In the folder *template* an empty one is kept for each
    version of Prefect, and copied the next time.
    """
    empty = template / f"prefect-{version('prefect')}.db" if template is not None else None
    database = _prepare(folder, empty)
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
        _keep(database, empty)
        yield api_url
    finally:
        await server.stop()


def server_command(listening: socket.socket, *options: str) -> list[str]:
    """How a server is started that serves on *listening*."""
    return [sys.executable, "-m", "flows.local.serving", str(listening.fileno()), *options]


async def until_ready(server: Process, api_url: str) -> None:
    """Wait until the server answers; when it ended instead, say why."""
    async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await _answers(http, api_url):
                    if server.process.returncode is not None:
                        words = process.last_lines(server.log)
                        raise RunbookError(f"the Prefect server ended while starting: {words}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            waited = f"{START_SECONDS:.0f} s"
            raise RunbookError(f"the Prefect server did not answer in {waited}: see {server.log}") from None


async def is_there(api_url: str) -> bool:
    """Whether any server answers at *api_url*; what it says to strangers is its own business."""
    try:
        async with httpx.AsyncClient(timeout=5) as http:
            await http.get(f"{api_url}/health")
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return True


async def _answers(http: httpx.AsyncClient, api_url: str) -> bool:
    try:
        return (await http.get(f"{api_url}/health")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _prepare(folder: Path, empty: Path | None) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = folder / "prefect.db"
    if empty is not None and empty.is_file() and not database.exists():
        _copy(empty, database)
    return database


def _keep(database: Path, empty: Path | None) -> None:
    if empty is not None and not empty.exists():
        empty.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy(database, empty)


def _copy(source: Path, target: Path) -> None:
    """Copy a SQLite database that may be in use; another process sees the whole copy or none."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(beside)) as new:
        old.backup(new)
    beside.replace(target)
