"""Trying payloads: what the core would do with each record of a body. Keeps nothing."""

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
from flows.cli.options import JsonOption, entity_called
from flows.cli.output import print_json
from flows.cli.session import open_database
from flows.local.embedded import empty_erp_database
from handlers.entities.document import BODY_BYTES_MAX, Refusal
from handlers.environment.load import load_environment
from handlers.erp import trial
from handlers.errors import ExitCode
from handlers.process import cancelled_by_sigterm

STDIN = "-"


@queue_app.command("try", short_help="what the core would do with a payload; keeps nothing")
def try_(
    entity: Annotated[str, typer.Option("--entity", help="Product, Customer, Invoice, SalesOrder, ...")],
    files: Annotated[list[str], typer.Argument(help="Files with a JSON body each; - is standard input.")],
    environment: Annotated[
        str | None,
        typer.Option("--environment", "-e", help="Try against this environment's tables; nothing is kept."),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Say what the core would do with each record of a body, one JSON line each; keeps nothing.

    Without an environment the records meet an empty database with the ERP's tables, so that whatever needs a
    parent says that it waits for it. A file that cannot be read, or holds no JSON, is a line like any other.
    """
    del json  # It speaks nothing but JSON anyway.
    kind = entity_called(entity)
    unread: list[str] = []
    # Before the event loop: a signal can then end a read that waits for somebody to type.
    bodies = list(_bodies(files, unread))

    async def go() -> None:
        with cancelled_by_sigterm():
            async with (
                _tables(environment) as database,
                aclosing(trial.try_bodies(database, kind, bodies)) as told,
            ):
                async for one in told:
                    print_json(one)

    try:
        asyncio.run(go())
    except BrokenPipeError:
        # Whoever read our lines has seen enough (`| head`). What is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if unread:
        # Not on stdout: there every line is a record.
        sys.stderr.write(f"runbook: could not read {', '.join(unread)}; the other files were tried\n")
        return ExitCode.REFUSED
    return ExitCode.GOOD


@asynccontextmanager
async def _tables(environment: str | None) -> AsyncIterator[AsyncEngine]:
    """The environment's database, or an empty embedded one that exists for as long as this command."""
    if environment is not None:
        async with open_database(load_environment(environment)) as database:
            yield database
        return
    async with empty_erp_database() as database:
        yield database


def _bodies(files: Iterable[str], unread: list[str]) -> Iterator[tuple[str, str | Refusal]]:
    """The text of each file, or why there is none; *unread* learns which could not be read."""
    for name in files:
        try:
            raw = _head(name)
        except OSError as error:
            unread.append(name)
            yield name, Refusal("(body)", f"cannot be read: {error.strerror}")
            continue
        yield name, _text(raw)


def _head(name: str) -> bytes:
    """What a file holds, up to one byte more than a body may have: it might be a device without an end."""
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
