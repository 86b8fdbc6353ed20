"""The commands that run until SIGTERM: the worker of a deployed ERP, the receiver, and the local Prefect."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import typer
from pydantic import SecretStr, TypeAdapter, ValidationError

from flows.cli.app import app
from flows.cli.output import console
from handlers.entities.apply import apply_events
from handlers.environment.load import load_environment
from handlers.environment.model import Database
from handlers.environment.references import Secret
from handlers.errors import Refused
from handlers.queue.settle import BACKOFF_CAP_SECONDS, BACKOFF_SECONDS, WAIT_SECONDS_MAX
from handlers.worker import service as core_worker


@app.command()
def worker(
    database_url: Annotated[
        str,
        typer.Option("--database-url", help="Reference to the database's address: env:NAME or file:PATH."),
    ] = "",
    environment: Annotated[
        str,
        typer.Option("--environment", "-e", help="Environment file with the address, instead of a URL."),
    ] = "",
    revision: Annotated[
        str, typer.Option("--revision", help="The commit that this worker runs, for the canary.")
    ] = "unknown",
    owner: Annotated[
        str, typer.Option("--owner", help="Readable worker name; a unique suffix is added.")
    ] = "",
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, max=5000, help="Events in one batch, at most.")
    ] = 1000,
    lease_seconds: Annotated[
        float, typer.Option("--lease-seconds", min=5, max=3600, help="How long a lease of a batch lasts.")
    ] = 300,
    backoff_seconds: Annotated[
        float,
        typer.Option(
            "--backoff-seconds", min=1, max=3600, help="Wait before the first retry; doubles with each."
        ),
    ] = BACKOFF_SECONDS,
    backoff_cap_seconds: Annotated[
        float,
        typer.Option("--backoff-cap-seconds", min=1, max=86_400, help="The longest wait before a retry."),
    ] = BACKOFF_CAP_SECONDS,
    wait_seconds: Annotated[
        float,
        typer.Option(
            "--wait-seconds", min=1, max=86_400, help="Wait for a parent of which no event is in the queue."
        ),
    ] = WAIT_SECONDS_MAX,
) -> int:
    """Apply events from the queue until SIGTERM; then finish or release the leased events within 10 s."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if backoff_cap_seconds < backoff_seconds:
        raise Refused("--backoff-cap-seconds must not be below --backoff-seconds")
    asyncio.run(
        core_worker.serve(
            _database(database_url, environment),
            revision=revision,
            apply=apply_events,
            owner=owner or None,
            batch_size=batch_size,
            lease_seconds=lease_seconds,
            backoff_seconds=backoff_seconds,
            backoff_cap_seconds=backoff_cap_seconds,
            wait_seconds=wait_seconds,
        )
    )
    return 0


@app.command()
def receive(
    environment: Annotated[
        str, typer.Option("--environment", "-e", help="Environment file with the database's address.")
    ] = "",
    database_url: Annotated[
        str,
        typer.Option("--database-url", help="Reference to the address instead: env:NAME or file:PATH."),
    ] = "",
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            "--port", min=0, max=65535, help="Port to listen on. 0: any free port, which the log names."
        ),
    ] = 8700,
    secret: Annotated[
        str, typer.Option("--secret", help="Reference to the signing secret: env:NAME or file:PATH.")
    ] = "",
    signed: Annotated[
        bool,
        typer.Option(
            "--signature/--no-signature", help="--no-signature accepts calls only from this machine."
        ),
    ] = True,
    body_bytes_max: Annotated[
        int,
        typer.Option("--body-bytes-max", min=1024, max=4_194_304, help="Bytes allowed in one webhook."),
    ] = 4_194_304,
    per_minute_max: Annotated[
        int,
        typer.Option("--per-minute-max", min=0, help="Calls allowed from one address; 0 means no limit."),
    ] = 20_000,
    trusted_proxies: Annotated[
        str,
        typer.Option(
            "--trusted-proxies", help="Addresses of reverse proxies whose X-Forwarded-For is trusted."
        ),
    ] = "",
) -> int:
    """Receive webhooks and write them to the queue until SIGTERM; answers after the commit."""
    from handlers.receiver.application import Settings
    from handlers.receiver.serve import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if signed != bool(secret):
        raise Refused("no secret: set --secret env:NAME, or use --no-signature on loopback")
    settings = Settings(
        secret=secret_of("--secret", secret) if signed else None,
        body_bytes_max=body_bytes_max,
        per_minute_max=per_minute_max,
    )
    database = _database(database_url, environment)
    asyncio.run(serve(database, settings, host=host, port=port, trusted_proxies=trusted_proxies))
    return 0


@app.command()
def up(
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="The port of the server on 127.0.0.1.")
    ] = 4200,
    deploy: Annotated[
        bool, typer.Option("--deploy/--no-deploy", help="Deploy the flows of prefect.yaml.")
    ] = True,
    stop_seconds: Annotated[
        float, typer.Option("--stop-seconds", help="How long Ctrl-C waits for unfinished runs.")
    ] = 60,
    database: Annotated[
        str,
        typer.Option(
            "--database",
            help="Reference to the address of a PostgreSQL for the server, env:NAME or file:PATH; else SQLite.",
        ),
    ] = "",
) -> int:
    """Run a local Prefect server and worker, so that releases can be started from its page."""
    from flows.local.up import up as run_up

    address = secret_of("--database", database).get_secret_value() if database else ""
    asyncio.run(
        run_up(
            port=port,
            deploy=deploy,
            stop_seconds=stop_seconds,
            database=address,
            print_line=console().print,
        )
    )
    return 0


def _database(url: str, environment: str) -> Database:
    """The database from --database-url or --environment. Raises Refused unless exactly one of them is set."""
    if bool(url) == bool(environment):
        raise Refused("use exactly one of --database-url env:NAME and --environment NAME")
    if environment:
        return load_environment(environment).database
    try:
        return Database(url=_reference(url))
    except ValidationError as error:
        raise Refused(f"--database-url: {_message(error)}") from None


def secret_of(option: str, reference: str) -> SecretStr:
    """The secret behind the reference that *option* was given. Raises Refused."""
    try:
        return TypeAdapter[SecretStr](Secret).validate_python(reference)
    except ValidationError as error:
        raise Refused(f"{option} {_message(error)}") from None


def _message(error: ValidationError) -> str:
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def _reference(text: str) -> str:
    if not text.startswith(("env:", "file:")):
        raise Refused(
            "--database-url must be a reference, env:NAME or file:PATH. An address on the command line "
            "would show its password in the process list."
        )
    return text
