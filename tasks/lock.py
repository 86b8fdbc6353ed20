"""The lock of an environment, renewed for as long as a release runs."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from handlers.core import Core
from handlers.errors import LockLost, RunbookError
from handlers.release import lock
from handlers.release.controller import controller_name, this_controller
from handlers.release.ledger import releases
from handlers.release.phase import FINISHED, Phase, Release
from tasks.policy import KEEP, step
from tasks.tools import tools

log = logging.getLogger(__name__)

RENEW_SECONDS = lock.TTL_SECONDS / 4


@asynccontextmanager
async def held(run: Release, *, take_over: str = "") -> AsyncIterator[Release]:
    """Hold the lock of the release's environment: take it, renew it in the background, release it at the end.

    Yields the release with its new fencing token. When another controller takes the lock over, the block is
    cancelled and LockLost raised. *take_over* is the reason for taking it from a live controller.
    """
    run = await _take(run, take_over)
    work = asyncio.current_task()
    assert work is not None
    lost: list[LockLost] = []
    renewal = asyncio.create_task(_keep_renewing(run, work, lost))
    try:
        yield run
    except asyncio.CancelledError:
        if lost:
            work.uncancel()
            raise lost[0] from None
        raise
    finally:
        renewal.cancel()
        await asyncio.wait({renewal})
        await _free(run)


@step(KEEP, "Take the lock of {run.environment}")
async def _take(run: Release, take_over: str) -> Release:
    async with tools(run) as core:
        bind, name = core.database, run.environment
        holder, controller = controller_name(), this_controller()
        if take_over:
            token = await lock.take_over(bind, name, run.id, holder, reason=take_over, controller=controller)
        else:
            token = await lock.take(bind, name, run.id, holder, controller=controller)
        return dataclasses.replace(await releases.get(bind, run.id), token=token)


async def _keep_renewing(run: Release, work: asyncio.Task[object], lost: list[LockLost]) -> None:
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            # Opened anew each time: the address and the password of the database are those of now.
            async with tools(run) as core:
                try:
                    await _renew(core, run)
                except LockLost as error:
                    if await _is_released_by_us(core, run):
                        return
                    lost.append(error)
                    work.cancel()
                    return
        except RunbookError as error:
            # The database is unreachable for now. The token still decides when it is back.
            log.warning("the lock of %s could not be renewed: %s", run.environment, error)


async def _renew(core: Core, run: Release) -> None:
    assert run.token is not None
    await lock.renew(core.database, run.environment, run.token)


async def _is_released_by_us(core: Core, run: Release) -> bool:
    """Whether the lock is gone because the release is held or finished: only the report is still being written."""
    now = await releases.get(core.database, run.id)
    return now.token == run.token and now.phase in FINISHED | {Phase.HELD}


async def _free(run: Release) -> None:
    assert run.token is not None
    try:
        async with tools(run) as core:
            await lock.free(core.database, run.environment, run.token)
    except RunbookError as error:
        log.warning("could not release the lock of %s, it will expire: %s", run.environment, error)
