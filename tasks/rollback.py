"""The steps of a rollback."""

from __future__ import annotations

from handlers.phases import begin, rollback
from handlers.release.phase import Conclusion, Release
from handlers.report import evidence
from tasks.policy import CHANGE, KEEP, LOOK, step
from tasks.tools import tools


@step(KEEP)
async def candidate(environment: str) -> Release:
    """The release that a rollback would undo. Raises Refused when there is none."""
    async with tools(environment) as core:
        return await begin.rollback_candidate(core.database, environment)


@step(LOOK)
async def save_evidence(run: Release) -> str:
    """Save the evidence within ten seconds; the rollback continues even when some of it cannot be saved."""
    async with tools(run) as core:
        return (await evidence.save(core, run)).sentence


@step(CHANGE)
async def activate(run: Release) -> Conclusion:
    """Stop the workers, restore unfinished dead letters, and activate the previous revision on every host."""
    async with tools(run) as core:
        return await rollback.activate_previous(core, run)


@step(LOOK)
async def conclude(run: Release, activated: Conclusion, reason: str, evidence_sentence: str) -> Conclusion:
    """Probe the previous revision on every host, and conclude the rollback."""
    async with tools(run) as core:
        return await rollback.conclude(core, run, activated=activated, why=reason, evidence=evidence_sentence)
