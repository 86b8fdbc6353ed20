"""Steps that read a release from the ledger, or change its phase there."""

from __future__ import annotations

from dataclasses import replace

from handlers.phases import begin, open_operations
from handlers.release import due, settings
from handlers.release.ledger import releases
from handlers.release.phase import FINISHED, Conclusion, Phase, Release, Verdict
from tasks.policy import KEEP, step
from tasks.tools import tools


@step(KEEP, "Enter {to} in the ledger")
async def enter(run: Release, to: Phase, conclusion: Conclusion | None = None, sentence: str = "") -> Release:
    """Close the current phase with its conclusion and enter the next one. Idempotent.

    Before the end of a release the hosts are asked about operations without an outcome.
    """
    async with tools(run) as core:
        if to in FINISHED:
            await open_operations.settle(core, run)
        if conclusion is None:
            return await releases.enter(core.database, run, to, verdict=Verdict.PASS, sentence=sentence)
        note = conclusion.note
        if to is Phase.ROLLING_BACK:
            note = replace(note, blames_revision=conclusion.blames_revision)
        return await releases.enter(
            core.database, run, to, verdict=conclusion.verdict, sentence=conclusion.sentence, note=note
        )


@step(KEEP, "Hold the release in the ledger")
async def hold(run: Release, conclusion: Conclusion) -> Release:
    """Hold the release, with what holds it: that decides whether it goes on by itself."""
    async with tools(run) as core:
        note = replace(conclusion.note, held_by=conclusion.held_by)
        return await releases.hold(core.database, run, conclusion.sentence, note=note)


@step(KEEP, "End the hold in the ledger")
async def resume(run: Release, sentence: str) -> Release:
    """End the hold of a release; its lock must have been taken. The ledger keeps how the environment file differs."""
    async with tools(run) as core:
        differences = await settings.differences_now(core.database, run)
        return await releases.resume(core.database, run, "; ".join([sentence, *differences]))


@step(KEEP, "Read release {release_id} from the ledger")
async def get(environment: str, release_id: str) -> Release:
    """The release from the ledger."""
    async with tools(environment) as core:
        return await releases.get(core.database, release_id)


@step(KEEP, "Find the unfinished release of {environment}")
async def unfinished(environment: str) -> Release:
    """The release of the environment that can be resumed. Raises Refused when there is none."""
    async with tools(environment) as core:
        return await due.unfinished(core.database, environment)


@step(KEEP, "Read the last conclusion")
async def last_sentence(run: Release, scope: tuple[Phase, ...]) -> str:
    """The conclusion of the last of these phases that has one; else an empty string."""
    async with tools(run) as core:
        records = await releases.phase_records(core.database, run)
    sentences = [record.sentence for record in records if record.phase in scope and record.sentence]
    return sentences[-1] if sentences else ""


@step(KEEP, "Read why it was rolled back")
async def rollback_cause(run: Release) -> str:
    """Why the first rollback of this release was started, however often it has been tried again since."""
    async with tools(run) as core:
        return await releases.rollback_cause(core.database, run)


@step(KEEP, "Ask whether hosts were changed")
async def changed_hosts(run: Release) -> bool:
    """Whether the release started to change a running service."""
    async with tools(run) as core:
        return await begin.changed_hosts(core, run)
