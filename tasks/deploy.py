"""The step that puts the released revision onto the hosts."""

from __future__ import annotations

from handlers.phases.deploy import deploy_release
from handlers.release.phase import Conclusion, Release
from tasks.policy import CHANGE, step
from tasks.tools import tools


@step(CHANGE)
async def deploy(run: Release) -> Conclusion:
    """Deploy: workers stop everywhere, one host first, then growing groups; a second try finds the first one."""
    async with tools(run) as core:
        return await deploy_release(core, run)
