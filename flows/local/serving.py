"""The Prefect server as a process, on a listening socket that it inherits.

    python -m flows.local.serving DESCRIPTOR [--api-only]

It serves what `prefect server start` serves. That command takes a port number and opens the port seconds later, when
another program may use it. Here the parent process listens on the port from the beginning.
"""

from __future__ import annotations

import argparse
import socket

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

BUSY_SECONDS = 5
"""How long a write waits for SQLite's lock. The client then gets 503, and asks again.

Prefect waits 60 s. When the garbage collector meets a cursor whose connection is waiting, the whole server stands still
with it, also the transaction that has the lock: the wait cannot be answered, and nothing else either.
"""


def main() -> None:
    """Serve until SIGTERM. Prefect's settings come from the environment."""
    parser = argparse.ArgumentParser(prog="flows.local.serving")
    parser.add_argument("descriptor", type=int)
    parser.add_argument("--api-only", action="store_true", help="without the background services")
    options = parser.parse_args()
    event.listen(Pool, "checkout", wait_briefly)
    settings = get_current_settings().server
    config = uvicorn.Config(
        create_app(final=True, webserver_only=options.api_only),
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )
    with socket.socket(fileno=options.descriptor) as listening:
        uvicorn.Server(config).run(sockets=[listening])


def wait_briefly(
    connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    """Shorten the wait of a connection to SQLite, once. Prefect sets its own when it connects."""
    if record.info.get("busy") == BUSY_SECONDS or "sqlite" not in type(connection).__module__:
        return
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.close()
    record.info["busy"] = BUSY_SECONDS


if __name__ == "__main__":
    main()
