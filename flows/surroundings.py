"""Looking around a release in the background: the upstream, the logs, the machines. People are paged, nothing waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from flows.announce import announce
from flows.telling import tell_soon
from handlers.phases.around_pages import Page
from handlers.release.phase import Release
from tasks.surroundings import look_around

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
    """Tell people: the log, the outbox, and an event of Prefect, on which an automation can page somebody."""
    tell_soon(run, told.event, told.sentence, subject=told.source, severity=told.severity)
    announce(told.event, run, source=told.source, sentence=told.sentence)
