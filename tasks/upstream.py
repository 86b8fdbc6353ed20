"""The steps that ask whether the upstream answers."""

from __future__ import annotations

from handlers.phases import upstream_pause
from handlers.phases.upstream_pause import Pause
from handlers.release.phase import Release
from tasks.policy import LOOK, step
from tasks.tools import tools


@step(LOOK, "Ask whether the upstream answers")
async def before_redrive(run: Release) -> Pause:
    """Whether what is still to be redriven waits for the upstream."""
    async with tools(run) as core:
        return await upstream_pause.before_redrive(core, run)


@step(LOOK, "Note that the upstream answers")
async def continued(run: Release) -> None:
    """Take the pause out of the status view."""
    async with tools(run) as core:
        await upstream_pause.continued(core, run)


@step(LOOK, "Ask whether the upstream is away")
async def away(run: Release) -> str:
    """The upstream's failed answers in a sentence; empty when it answers."""
    async with tools(run) as core:
        return await upstream_pause.away(core)
