"""The step of healing: one run in one environment."""

from __future__ import annotations

from handlers.phases import heal
from handlers.phases.heal import Healed
from tasks.policy import SHORT_RUN, step
from tasks.tools import tools


@step(SHORT_RUN, "Heal {environment}")
async def run(environment: str) -> Healed:
    """Heal once. Who comes 15 minutes later goes on where it fails."""
    async with tools(environment) as core:
        return await heal.run(core)
