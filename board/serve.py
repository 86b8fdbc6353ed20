"""Running the board until a signal stops it."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from pydantic import SecretStr
from starlette.types import ASGIApp

from board.access import raise_unless_safe
from board.application import application
from board.place import open_places
from handlers.errors import Refused
from handlers.receiver.connection import Connection

STOP_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class Listen:
    """Where the board listens, and how."""

    host: str = "127.0.0.1"
    port: int = 8710
    token: SecretStr | None = None
    certificate: Path | None = None
    """A PEM file; with *key* the board speaks https itself."""
    key: Path | None = None
    named: bool = True
    """Whether a person has named the environments: then each must have a file that can be used."""
    trusted_proxies: str = ""
    """Addresses of reverse proxies whose X-Forwarded-Proto is trusted."""


async def serve(names: list[str], listen: Listen) -> None:
    """Serve these environments until SIGTERM or SIGINT.

    Raises Refused without a token off loopback, for a taken port, and for a certificate or a file that cannot be used.
    """
    raise_unless_safe(listen.token, listen.host)
    async with open_places(names, named=listen.named) as places:
        config = server_config(application(places, listen.token), listen)
        server = uvicorn.Server(config)
        # Uvicorn raises the signal again after its shutdown; it must not end the process then.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        try:
            await server.serve()
        except SystemExit as error:
            raise Refused(
                f"cannot listen on {listen.host}:{listen.port}: the port may be taken, choose another with --listen"
            ) from error
        except OSError as error:
            # The certificate and its key; a port that is taken ends as above.
            raise Refused(f"the certificate cannot be used: {error.strerror or error}") from error


def server_config(app: ASGIApp, listen: Listen) -> uvicorn.Config:
    """Uvicorn's configuration for *app*, with the limits of the receiver against slow clients."""
    return uvicorn.Config(
        app,
        host=listen.host,
        port=listen.port,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(listen.trusted_proxies),
        forwarded_allow_ips=listen.trusted_proxies or None,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=listen.certificate,
        ssl_keyfile=listen.key,
    )


def run(names: list[str], listen: Listen) -> None:
    """The same, as a whole program."""
    asyncio.run(serve(names, listen))
