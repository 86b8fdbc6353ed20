"""The step of the probe."""

from __future__ import annotations

from handlers.phases.probe import prove
from handlers.release.phase import Conclusion, Release
from tasks.policy import LOOK, step
from tasks.tools import tools


@step(LOOK, "Probe every host for {run.to_revision:.7}")
async def probe(run: Release) -> Conclusion:
    """Wait until every host is healthy and runs the released revision, or the limit has passed."""
    async with tools(run) as core:
        return await prove(core, run, run.to_revision)
