"""`runbook board`: serve releases, queue and alerts over HTTP until SIGTERM."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import app
from flows.cli.serve import secret_of
from handlers.environment.last_good import names
from handlers.errors import Refused


@app.command()
def board(
    environments: Annotated[
        list[str] | None,
        typer.Option(
            "--environment",
            "-e",
            help="An environment to serve; may be repeated. Default: all of the folder.",
            envvar="RUNBOOK_ENVIRONMENT",
            show_default=False,
        ),
    ] = None,
    listen: Annotated[
        str,
        typer.Option("--listen", help="HOST:PORT to listen on. Port 0: any free port, which the log names."),
    ] = "127.0.0.1:8710",
    token: Annotated[
        str,
        typer.Option(
            "--token", help="Reference to the token that everybody needs off loopback: env:NAME or file:PATH."
        ),
    ] = "",
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="A PEM file: with --key the board speaks https.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="The key of the certificate.")] = None,
    trusted_proxies: Annotated[
        str,
        typer.Option(
            "--trusted-proxies", help="Addresses of reverse proxies whose X-Forwarded-Proto is trusted."
        ),
    ] = "",
) -> int:
    """Serve a page, JSON and metrics for Prometheus until SIGTERM. It reads; hold and approve are its only actions."""
    from board.serve import Listen, run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    served = environments or names()
    if not served:
        raise Refused("there is no environment file: name one with --environment")
    if (certificate is None) != (key is None):
        raise Refused("--certificate and --key belong together: set both, or none")
    host, port = _address(listen)
    settings = Listen(
        host=host,
        port=port,
        token=secret_of("--token", token) if token else None,
        named=bool(environments),
        certificate=certificate,
        key=key,
        trusted_proxies=trusted_proxies,
    )
    run(served, settings)
    return 0


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise Refused(f"--listen {listen!r} is not HOST:PORT, as in 127.0.0.1:8710 or [::1]:8710")
    return host, int(port)
