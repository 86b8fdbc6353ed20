"""The steps of the canary."""

from __future__ import annotations

import logging

from handlers.phases import canary, synthetic
from handlers.phases.canary import Chosen
from handlers.release.phase import Conclusion, Release
from tasks import page
from tasks.policy import CHANGE, LOOK, step
from tasks.tools import tools

log = logging.getLogger(__name__)


@step(LOOK, "Choose the dead letter for the canary")
async def choose(run: Release) -> Chosen:
    """Choose the dead letter for the canary, or say why there is none."""
    async with tools(run) as core:
        return await canary.choose(core, run)


@step(CHANGE, "Redrive the canary")
async def send(run: Release, chosen: Chosen) -> Chosen:
    """Redrive the chosen event for the deployed workers. Sending it twice has no effect."""
    async with tools(run) as core:
        return await canary.send(core, run, chosen)


@step(LOOK, "Follow the canary until it settles")
async def follow(run: Release, chosen: Chosen) -> Conclusion:
    """Wait until the event settles, and judge it."""
    async with tools(run) as core:
        conclusion = await canary.follow(core, run, chosen)
        page.call_it(f"Canary: {conclusion.sentence}")
        return conclusion


async def withdraw(run: Release) -> None:
    """Take the synthetic events of a release out of the queue; an error is logged and changes no outcome."""
    try:
        await _withdraw(run)
    except Exception as error:
        log.warning("the synthetic events of release %s stay in the queue: %s", run.id, error)


@step(LOOK, "Take synthetic events out of the queue")
async def _withdraw(run: Release) -> None:
    async with tools(run) as core:
        await synthetic.withdraw(core.database, run.id)
