"""Running the receiver until it is told to stop: calls in hand are written and answered first."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal

import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from handlers.database.engine import receiver_engine
from handlers.environment.model import Database
from handlers.errors import Refused
from handlers.process import tune_garbage_collector
from handlers.receiver.application import Settings, application
from handlers.receiver.connection import Connection

log = logging.getLogger(__name__)

SECRET_LENGTH_MIN = 12
"""The source takes secrets of 12 to 50 letters and digits."""
_STOP_SECONDS = 8


async def serve(
    database: Database, settings: Settings, *, host: str, port: int, trusted_proxies: str = ""
) -> None:
    """Receive until SIGTERM or SIGINT. Refuses to start without a secret, unless nobody else can reach it.

    *trusted_proxies* are the addresses, with commas between them, whose word about the caller counts.
    """
    check(settings.secret, host)
    tune_garbage_collector()
    engine = receiver_engine(database)
    config = server_config(application(engine, settings), trusted_proxies=trusted_proxies)
    config.host, config.port = host, port
    server = uvicorn.Server(config)
    # The server raises the signal again when it has stopped; by then it has done its work.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        await server.serve()
    except SystemExit as error:
        raise Refused(f"cannot listen on {host}:{port}; is the port taken?") from error
    finally:
        await asyncio.shield(engine.dispose())


def server_config(app: FastAPI, *, trusted_proxies: str = "") -> uvicorn.Config:
    """How the server serves *app*: with our own connections, and nothing that a webhook does not need."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies or None,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )


def check(secret: SecretStr | None, host: str) -> None:
    """Fail closed: a receiver that strangers can reach has a secret."""
    if secret is None:
        if not is_loopback(host):
            raise Refused(f"without a signature only this machine may call, and {host} is open to others")
        log.warning("webhooks are accepted without a signature: from this machine only")
    elif len(secret.get_secret_value()) < SECRET_LENGTH_MIN:
        raise Refused(f"the secret of the signature is shorter than {SECRET_LENGTH_MIN} characters")


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
