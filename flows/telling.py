"""Telling people while a release runs: another process sends the outbox, and nothing here waits for it.

A message is in the ledger before it is sent. What this process does not see to is sent by the next minute's timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.engine import controller_engine
from handlers.environment.last_good import last_good
from handlers.environment.load import path_of
from handlers.environment.model import Environment
from handlers.errors import RunbookError
from handlers.release.ledger import outbox

POLL_SECONDS = 1.0
"""How often the outbox is looked into. Real seconds."""
AWAY_SECONDS = 15.0
"""After a look that failed, none is made for this time."""
TELL_SECONDS = 20.0
"""A timer's command waits so long for the messages that are being sent: systemd ends its children with it."""
LOOK_SECONDS = 3.0
"""How long one look may take."""
_NO_LOOK = (RunbookError, OSError, TimeoutError)
"""The ledger is away, or the file cannot be used: what is in the outbox stays there."""


@asynccontextmanager
async def telling(environment: str, *, wait_seconds: float = 0.0) -> AsyncIterator[None]:
    """Start a sender whenever a message is due while the block runs, and once more at its end.

    It neither ends nor delays the block, whatever happens to it. *wait_seconds* is for a timer's command, whose end
    ends its children: after the block it waits so long for what is being sent.
    """
    watching = asyncio.create_task(_watch(environment))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching}, timeout=0.5)
        await _at_the_end(environment, wait_seconds)


async def _watch(environment: str) -> None:
    """Look into the outbox until cancelled."""
    while True:
        with contextlib.suppress(*_NO_LOOK):
            settings = await last_good(environment)
            if settings.notify.addresses:
                async with _engine(settings) as database:
                    await _send_from(database, settings.name, environment)
        await asyncio.sleep(AWAY_SECONDS)


async def _send_from(database: AsyncEngine, name: str, environment: str) -> None:
    """Start a sender whenever something is due and the one before has ended. Raises what prevents the look."""
    sender: subprocess.Popen[bytes] | None = None
    while True:
        if (sender is None or sender.poll() is not None) and await _is_due(database, name):
            sender = start_sender(environment)
        await asyncio.sleep(POLL_SECONDS)


async def _at_the_end(environment: str, wait_seconds: float) -> None:
    """Start a last sender for what is due now."""
    deadline = monotonic() + wait_seconds
    with contextlib.suppress(*_NO_LOOK):
        settings = await last_good(environment)
        if not settings.notify.addresses:
            return
        async with _engine(settings) as database:
            if not await _is_due(database, settings.name):
                return
            start_sender(environment)
            while monotonic() < deadline and await _is_due(database, settings.name):  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def _engine(settings: Environment) -> AsyncIterator[AsyncEngine]:
    database = controller_engine(settings.database)
    try:
        yield database
    finally:
        await database.dispose()


async def _is_due(database: AsyncEngine, name: str) -> bool:
    async with asyncio.timeout(LOOK_SECONDS):
        return await outbox.is_due(database, name)


def start_sender(environment: str) -> subprocess.Popen[bytes]:
    """Start `runbook notify --due` in a session of its own. Its command line has no address."""
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "notify",
        "--due",
        "--environment",
        str(path_of(environment)),
    ]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    return subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
