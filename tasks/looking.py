"""The steps of looking at live traffic."""

from __future__ import annotations

from handlers.phases import held, looking
from handlers.phases.looking import Looker
from handlers.release.phase import Conclusion, Release
from tasks.policy import LOOK, step
from tasks.tools import tools


@step(LOOK)
async def begin(run: Release) -> Looker:
    """Who looks at the live traffic of this release, with what earlier looks have seen."""
    async with tools(run) as core:
        return await looking.begin(core, run)


@step(LOOK)
async def until_breach(run: Release, looker: Looker) -> Conclusion:
    """Look every ten runbook seconds, until the gate finds a breach. It ends by itself in no other way."""
    async with tools(run) as core:
        return await looking.until_breach(core, run, looker)


@step(LOOK)
async def open_intake(run: Release) -> None:
    """Give the intake free, whatever the gate held."""
    async with tools(run) as core:
        await looking.open_intake(core, run)


@step(LOOK)
async def while_held(run: Release) -> Release:
    """Look once at the live traffic of a held release. A breach begins its way back."""
    async with tools(run) as core:
        return await held.look(core, run)
