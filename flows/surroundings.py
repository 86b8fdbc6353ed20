"""Looking around a release in the background: the upstream, the logs, the machines. People are paged, nothing waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from flows.announce import announce
from handlers.phases.surroundings import Page
from handlers.release.phase import Release
from tasks.surroundings import look_around

log = logging.getLogger(__name__)

_END_SECONDS = 0.5
"""How long the end of a release waits for a look that is under way."""


@asynccontextmanager
async def looked_around(run: Release) -> AsyncIterator[None]:
    """Look around while the block runs. It neither ends nor delays the block, whatever happens to it."""
    looking = asyncio.create_task(look_around(run, partial(page, run)))
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait({looking}, timeout=_END_SECONDS)


def page(run: Release, told: Page) -> None:
    """Tell people: a line of level ERROR, and an event of Prefect, on which an automation can page somebody."""
    if told.event.endswith(".back"):
        log.warning("release %s: %s", run.id, told.sentence)
    else:
        log.error("release %s: %s", run.id, told.sentence)
    announce(told.event, run, source=told.source, sentence=told.sentence)
