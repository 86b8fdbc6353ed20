"""Running the receiver until a signal stops it: calls in progress are written and answered first."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal

import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from handlers.database.engine import raise_if_impossible, receiver_engine
from handlers.environment.model import Database
from handlers.errors import Refused
from handlers.process import tune_garbage_collector
from handlers.receiver.application import Settings, application
from handlers.receiver.connection import Connection
from handlers.receiver.readiness import HealthCheck

log = logging.getLogger(__name__)

SECRET_LENGTH_MIN = 12
"""The source accepts secrets of 12 to 50 letters and digits."""
_STOP_SECONDS = 8


async def serve(
    database: Database, settings: Settings, *, host: str, port: int, trusted_proxies: str = ""
) -> None:
    """Receive until SIGTERM or SIGINT. Raises Refused without a secret, except on loopback, and for a taken port.

    Raises Refused as well when the database can never be reached; one that is only away is waited for.
    *trusted_proxies* are comma-separated addresses of reverse proxies whose X-Forwarded-For is trusted.
    """
    check(settings.secret, host)
    tune_garbage_collector()
    engine = receiver_engine(database)
    try:
        await raise_if_impossible(engine)
        # Missing privileges are logged now, and shown by /health until somebody grants them.
        await HealthCheck(engine).check()
    except BaseException:
        await engine.dispose()
        raise
    config = server_config(application(engine, settings), trusted_proxies=trusted_proxies)
    config.host, config.port = host, port
    server = uvicorn.Server(config)
    # Uvicorn raises the signal again after its shutdown; it must not end the process then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        await server.serve()
    except SystemExit as error:
        raise Refused(
            f"cannot listen on {host}:{port}: the port may be taken, choose another with --port"
        ) from error
    finally:
        await asyncio.shield(engine.dispose())


def server_config(app: FastAPI, *, trusted_proxies: str = "") -> uvicorn.Config:
    """Uvicorn's configuration for *app*: our own connection class, and no feature that a webhook does not need."""
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
    """Raise Refused without a secret on a public address, or with a short one: the receiver fails closed."""
    if secret is None:
        if not is_loopback(host):
            raise Refused(
                f"{host} is open to other machines, and without a signature only this machine may call; set --secret"
            )
        log.warning("webhooks are accepted without a signature, from this machine only")
    elif len(secret.get_secret_value()) < SECRET_LENGTH_MIN:
        raise Refused(f"the secret of the signature must have at least {SECRET_LENGTH_MIN} characters")


def is_loopback(host: str) -> bool:
    """Whether *host* is a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
