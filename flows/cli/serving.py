"""Commands that keep running: the worker that a deployed ERP runs, and the local Prefect."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import typer

from flows.cli.app import app
from flows.cli.output import console
from handlers import config, entities
from handlers.errors import Refused
from handlers.webhooks import worker as core_worker


@app.command()
def worker(
    database_url: Annotated[
        str, typer.Option("--database-url", help="A reference to the address: env:NAME or file:PATH.")
    ] = "",
    environment: Annotated[
        str, typer.Option("--environment", "-e", help="Take the address from an environment file instead.")
    ] = "",
    revision: Annotated[
        str, typer.Option("--revision", help="The commit that this worker runs; the canary asks for it.")
    ] = "unknown",
    owner: Annotated[str, typer.Option("--owner", help="A name for people; made unique by itself.")] = "",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, max=5000)] = 500,
    lease_seconds: Annotated[float, typer.Option("--lease-seconds", min=5, max=3600)] = 300,
) -> int:
    """Apply events from the queue until SIGTERM; then finish or give back what is in hand within 10 s."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if bool(database_url) == bool(environment):
        raise Refused("name exactly one of --database-url env:NAME and --environment NAME")
    if environment:
        url = config.load(environment).database.sqlalchemy_url()
    else:
        url = config.Database(url=_reference(database_url)).sqlalchemy_url()
    asyncio.run(
        core_worker.serve(
            url,
            revision=revision,
            apply=entities.apply,
            owner=owner or None,
            batch_size=batch_size,
            lease_seconds=lease_seconds,
        )
    )
    return 0


@app.command()
def up(
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 4200,
    deploy: Annotated[
        bool, typer.Option("--deploy/--no-deploy", help="Put the flows of prefect.yaml on its page.")
    ] = True,
    stop_seconds: Annotated[
        float, typer.Option("--stop-seconds", help="How long Ctrl-C waits for runs under way.")
    ] = 60,
) -> int:
    """Run a local Prefect server and worker, so that releases can be started from its page."""
    from flows.up import up as run_up

    asyncio.run(run_up(port=port, deploy=deploy, stop_seconds=stop_seconds, say=console().print))
    return 0


def _reference(text: str) -> str:
    if not text.startswith(("env:", "file:")):
        raise Refused(
            "--database-url takes a reference, env:NAME or file:PATH: an address on the command line "
            "shows its password to everyone on the machine"
        )
    return text
