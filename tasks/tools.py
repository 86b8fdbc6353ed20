"""The core of one step. Each step opens its own: connections do not survive a retry or another event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from handlers.core import Core, open_core
from handlers.environment.last_good import last_good
from handlers.release.phase import Release
from handlers.release.settings import environment_of


@asynccontextmanager
async def tools(run: Release | str) -> AsyncIterator[Core]:
    """Open the core of a release, with the settings that it was planned with.

    For a name: the core of this environment, as its file last was good.
    """
    if isinstance(run, str):
        environment, speed = await last_good(run), 1.0
    else:
        environment, speed = await environment_of(run), run.speed
    async with open_core(environment, speed=speed) as core:
        yield core
