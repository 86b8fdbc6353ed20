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


def main() -> None:
    """Serve until SIGTERM. Prefect's settings come from the environment."""
    parser = argparse.ArgumentParser(prog="flows.local.serving")
    parser.add_argument("descriptor", type=int)
    parser.add_argument("--api-only", action="store_true", help="without the background services")
    options = parser.parse_args()
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


if __name__ == "__main__":
    main()
