"""Telling people while a release runs: another process sends the outbox, and nothing here waits for it.

A message is in the ledger before it is sent. What this process does not see to is sent by the next minute's timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.engine import controller_engine
from handlers.environment.last_good import last_good
from handlers.environment.load import path_of
from handlers.environment.model import Environment
from handlers.environment.notification import Severity
from handlers.errors import RunbookError
from handlers.notify.tell import of_release, say, send_without_ledger, write
from handlers.phases.neglected import tell_neglected
from handlers.release.ledger import outbox
from handlers.release.phase import Release
from handlers.release.topic import RECOVERIES, Topic
from tasks.tools import tools

POLL_SECONDS = 1.0
"""How often the outbox is looked into. Real seconds."""
AWAY_SECONDS = 15.0
"""After a look that failed, none is made for this time."""
TIMER_SECONDS = 20.0
"""A timer's command waits so long for the messages that are being sent: systemd ends its children with it."""
END_SECONDS = 1.0
"""How long the end waits for what is being written: the release has ended by then."""
LOOK_SECONDS = 3.0
"""How long one look may take."""
AGAIN_PAUSES = (5.0, *(15.0,) * 40)
"""Before a message is written again that the ledger could not be told: ten minutes, as long as a step waits for it."""
_OPEN: set[asyncio.Task[None]] = set()
"""What is being told now: the event loop keeps no strong reference."""
_NO_LOOK = (RunbookError, OSError, TimeoutError)
"""The ledger is away, or the file cannot be used: what is in the outbox stays there."""


@asynccontextmanager
async def telling(environment: str, *, timer: bool = False) -> AsyncIterator[None]:
    """Start a sender whenever a message is due while the block runs, and once more at its end.

    It neither ends nor delays the block, whatever happens to it. A *timer* also looks for what nobody looks after, and
    waits TIMER_SECONDS at most for what is being sent: systemd ends the children of its command with it.
    """
    watching = asyncio.create_task(_watch(environment))
    looking = asyncio.create_task(_look_for_neglected(environment)) if timer else None
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching}, timeout=END_SECONDS)
        await finish_telling()
        if looking is not None:
            await asyncio.wait({looking}, timeout=LOOK_SECONDS)
            looking.cancel()
        await _at_the_end(environment, TIMER_SECONDS if timer else 0.0)


def tell_soon(
    run: Release,
    topic: Topic,
    sentence: str,
    *,
    subject: str = "",
    severity: Severity | None = None,
    logged: bool = False,
) -> None:
    """Tell people in the background, for callers that nothing may delay. *logged*: the log has it already.

    While the ledger is away a page is sent without it, and is written into the outbox when it answers again.
    """
    if not logged:
        say(run, topic, sentence, severity=severity)
    task = asyncio.create_task(_tell(run, topic, sentence, subject, severity))
    _OPEN.add(task)
    task.add_done_callback(_OPEN.discard)


async def finish_telling() -> None:
    """Wait a moment for what is being told, and give up what takes longer: the log has it."""
    if _OPEN:
        await asyncio.wait(set(_OPEN), timeout=END_SECONDS)
    for task in list(_OPEN):
        task.cancel()
    if _OPEN:
        await asyncio.wait(set(_OPEN), timeout=END_SECONDS)


async def _tell(run: Release, topic: Topic, sentence: str, subject: str, severity: Severity | None) -> None:
    sent_otherwise = ""
    for pause in AGAIN_PAUSES:
        with contextlib.suppress(RunbookError, OSError):
            async with tools(run) as core:
                if await write(
                    core,
                    run,
                    topic,
                    sentence,
                    subject=subject,
                    severity=severity,
                    sent_otherwise=sent_otherwise,
                ):
                    return
                message = of_release(run, topic, sentence, severity=severity)
                if message.severity is Severity.PAGE and not sent_otherwise and topic not in RECOVERIES:
                    sent_otherwise = await send_without_ledger(core.environment, message)
        await asyncio.sleep(pause)


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


async def _look_for_neglected(environment: str) -> None:
    with contextlib.suppress(*_NO_LOOK):
        async with tools((await last_good(environment)).name) as core:
            await tell_neglected(core)


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
    sender = subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Nobody waits for it. The thread only takes its exit status, so that no zombie is left in a long release.
    threading.Thread(target=sender.wait, name="sender", daemon=True).start()
    return sender
