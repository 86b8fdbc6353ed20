"""The steps of a rollback."""

from __future__ import annotations

from handlers.phases import begin, rollback
from handlers.release.phase import Conclusion, Release
from handlers.report import evidence
from tasks.policy import CHANGE, KEEP, LOOK, step
from tasks.tools import tools


@step(KEEP)
async def candidate(environment: str) -> Release:
    """The release that a rollback would take back; Refused when there is none."""
    async with tools(environment) as core:
        return await begin.rollback_candidate(core.database, environment)


@step(LOOK)
async def save_evidence(run: Release) -> str:
    """Save what is known, within ten seconds; the rollback goes on whatever could not be saved."""
    async with tools(run) as core:
        return (await evidence.save(core, run)).sentence


@step(CHANGE)
async def activate(run: Release) -> Conclusion:
    """Stop the workers, put unfinished dead letters back, and activate the former revision on every host."""
    async with tools(run) as core:
        return await rollback.activate_previous(core, run)


@step(LOOK)
async def conclude(run: Release, activated: Conclusion, why: str, saved: str) -> Conclusion:
    """Prove the former revision on every host."""
    async with tools(run) as core:
        return await rollback.conclude(core, run, activated=activated, why=why, evidence=saved)
