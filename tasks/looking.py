"""The steps of looking at live traffic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from handlers.core import Core
from handlers.errors import RunbookError
from handlers.phases import held, intake, looking
from handlers.phases.looker import Looker
from handlers.release.phase import Conclusion, Release
from tasks.policy import BESIDE, LOOK, step
from tasks.tools import tools

log = logging.getLogger(__name__)

OPEN_SECONDS = 5.0


@step(LOOK, "Read what the gate has seen")
async def begin(run: Release) -> Looker:
    """Who looks at the live traffic of this release, with what earlier looks have seen."""
    async with tools(run) as core:
        return await looking.begin(core, run)


@step(BESIDE, "Look at live traffic beside the phase")
async def until_breach(run: Release, looker: Looker) -> Conclusion | None:
    """Look every ten runbook seconds, until the gate finds a breach or the looker is stopped."""
    async with tools(run) as core:
        return await looking.until_breach(core, run, looker)


async def open_intake(run: Release) -> None:
    """Give the intake free, whatever the gate held. Where that fails it ends by itself: nothing waits for it."""
    await _tried(run, intake.open_intake, "the gate's limits end by themselves")


async def close_intake(run: Release) -> None:
    """Let nothing through while hosts go back. Where that fails they go back all the same."""
    await _tried(run, intake.close_intake, "the queue stays open while hosts go back")


async def _tried(run: Release, change: Callable[[Core, Release], Awaitable[None]], otherwise: str) -> None:
    try:
        async with asyncio.timeout(OPEN_SECONDS), tools(run) as core:
            await change(core, run)
    except (RunbookError, TimeoutError) as error:
        log.warning("%s: %s", otherwise, error)


@step(LOOK, "Look at live traffic while it is held")
async def while_held(run: Release) -> Release:
    """Look once at the live traffic of a held release. A breach begins its way back."""
    async with tools(run) as core:
        return await held.look(core, run)
