"""The core of one step. Each step opens its own: connections do not survive a retry or another event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from handlers.core import Core, open_core
from handlers.environment.load import load_environment
from handlers.release.phase import Release


@asynccontextmanager
async def tools(run: Release | str) -> AsyncIterator[Core]:
    """Open the core of a release, or of the environment with this name."""
    name, speed = (run, 1.0) if isinstance(run, str) else (run.environment, run.speed)
    async with open_core(load_environment(name), speed=speed) as core:
        yield core
