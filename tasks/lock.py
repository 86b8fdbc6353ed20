"""The lock of an environment, kept alive for as long as a release is carried out."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from handlers.core import Core
from handlers.errors import LockLost, RunbookError
from handlers.release import lock
from handlers.release.ledger import releases
from handlers.release.phase import FINISHED, Phase, Release
from tasks.policy import KEEP, step
from tasks.tools import tools

log = logging.getLogger(__name__)

BEAT_SECONDS = lock.TTL_SECONDS / 4


def holder() -> str:
    """What the lock and the status view call this controller: the machine and the process."""
    return f"{socket.gethostname()}:{os.getpid()}"


@asynccontextmanager
async def held(run: Release, *, take_over: str = "") -> AsyncIterator[Release]:
    """Hold the release's environment: take the lock, renew it beside the work, give it back at the end.

    Yields the release with its new fencing token. When somebody else takes the lock over, the work is cancelled and
    LockLost raised. *take_over* is the reason for taking it from a controller that still lives.
    """
    run = await _take(run, take_over)
    work = asyncio.current_task()
    assert work is not None
    lost: list[LockLost] = []
    beating = asyncio.create_task(_beat(run, work, lost))
    try:
        yield run
    except asyncio.CancelledError:
        if lost:
            work.uncancel()
            raise lost[0] from None
        raise
    finally:
        beating.cancel()
        await asyncio.wait({beating})
        await _free(run)


@step(KEEP)
async def _take(run: Release, take_over: str) -> Release:
    async with tools(run) as core:
        bind, name = core.database, run.environment
        if take_over:
            token = await lock.steal(bind, name, run.id, holder(), reason=take_over)
        else:
            token = await lock.take(bind, name, run.id, holder())
        return dataclasses.replace(await releases.get(bind, run.id), token=token)


async def _beat(run: Release, work: asyncio.Task[object], lost: list[LockLost]) -> None:
    async with tools(run) as core:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                await _renew(core, run)
            except LockLost as error:
                if await _ended_by_us(core, run):
                    return
                lost.append(error)
                work.cancel()
                return
            except RunbookError as error:
                # A database that is away for a moment: the token still decides when it is back.
                log.warning("the lock of %s could not be renewed: %s", run.environment, error)


async def _renew(core: Core, run: Release) -> None:
    assert run.token is not None
    await lock.renew(core.database, run.environment, run.token)


async def _ended_by_us(core: Core, run: Release) -> bool:
    """A release that is held or finished has given its lock back: only the report is still being written."""
    now = await releases.get(core.database, run.id)
    return now.token == run.token and now.phase in FINISHED | {Phase.HELD}


async def _free(run: Release) -> None:
    assert run.token is not None
    try:
        async with tools(run) as core:
            await lock.free(core.database, run.environment, run.token)
    except RunbookError as error:
        log.warning("the lock of %s will run out by itself: %s", run.environment, error)
