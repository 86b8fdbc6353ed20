"""The step that deploys the released revision to the hosts."""

from __future__ import annotations

from handlers.phases.deploy import deploy_release
from handlers.release.phase import Conclusion, Release
from tasks.policy import CHANGE, step
from tasks.tools import tools


@step(CHANGE, "Deploy {run.to_revision:.7} to the hosts")
async def deploy(run: Release) -> Conclusion:
    """Stop all workers, then deploy to one host and to growing groups. A retry attaches to the first try."""
    async with tools(run) as core:
        return await deploy_release(core, run)
