"""The command `runbook queue try`: what the core would do with each record of a payload. Stores nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import queue_app
from flows.cli.options import JsonOption, parse_entity
from flows.cli.output import print_json
from flows.cli.session import open_database
from flows.local.embedded import empty_erp_database
from handlers.entities.document import BODY_BYTES_MAX, Refusal
from handlers.environment.load import load_environment
from handlers.erp import trial
from handlers.errors import ExitCode
from handlers.process import cancelled_by_sigterm

STDIN = "-"


@queue_app.command("try", short_help="show what the core would do with a payload")
def try_(
    entity: Annotated[
        str, typer.Option("--entity", help="Entity type: Product, Customer, Invoice, SalesOrder, ...")
    ],
    files: Annotated[
        list[str], typer.Argument(help="Files with one JSON payload each; - is standard input.")
    ],
    environment: Annotated[
        str | None,
        typer.Option("--environment", "-e", help="Try against this environment's tables; stores nothing."),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Show what the core would do with each record of a payload, as one JSON line; stores nothing.

    Without an environment the records are applied to an empty database with the ERP's tables. A record that needs a
    parent is then reported as waiting for it. A file that cannot be read, or is not JSON, is reported in a line too.
    """
    del json  # The output is always JSON.
    entity_type = parse_entity(entity)
    unreadable: list[str] = []
    # Read before the event loop starts, so that Ctrl-C ends a read from a terminal.
    bodies = list(_bodies(files, unreadable))

    async def execute() -> None:
        with cancelled_by_sigterm():
            async with (
                _database(environment) as database,
                aclosing(trial.try_bodies(database, entity_type, bodies)) as results,
            ):
                async for result in results:
                    print_json(result)

    try:
        asyncio.run(execute())
    except BrokenPipeError:
        # The reader of the pipe has ended (`| head`). The rest of the buffer goes to /dev/null.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if unreadable:
        # On stderr, because every line on stdout is a record.
        sys.stderr.write(f"runbook: could not read {', '.join(unreadable)}; the other files were tried\n")
        return ExitCode.REFUSED
    return ExitCode.GOOD


@asynccontextmanager
async def _database(environment: str | None) -> AsyncIterator[AsyncEngine]:
    """The environment's database, or an empty embedded one that is removed at the end."""
    if environment is not None:
        async with open_database(load_environment(environment)) as database:
            yield database
        return
    async with empty_erp_database() as database:
        yield database


def _bodies(files: Iterable[str], unreadable: list[str]) -> Iterator[tuple[str, str | Refusal]]:
    """The name and the text of each file, or a Refusal; names of files that cannot be read go to *unreadable*."""
    for name in files:
        try:
            raw = _read_limited(name)
        except OSError as error:
            unreadable.append(name)
            yield name, Refusal("(body)", f"cannot be read: {error.strerror}")
            continue
        yield name, _text(raw)


def _read_limited(name: str) -> bytes:
    """The content of a file, up to one byte more than a payload may have: it might be an endless device."""
    if name == STDIN:
        return sys.stdin.buffer.read(BODY_BYTES_MAX + 1)
    with Path(name).open("rb") as file:
        return file.read(BODY_BYTES_MAX + 1)


def _text(raw: bytes) -> str | Refusal:
    if len(raw) > BODY_BYTES_MAX:
        return Refusal("(body)", f"is larger than {BODY_BYTES_MAX} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Refusal("(body)", f"is not UTF-8 text: byte {error.start} is {raw[error.start]:#x}")
