"""What people ask of a running release. Polled each second, so these are no Prefect tasks, and are not retried."""

from __future__ import annotations

from handlers.phases import open_operations
from handlers.phases.drain import restore_unsettled
from handlers.release.ledger import releases, requests
from handlers.release.ledger.requests import Request
from handlers.release.phase import Phase, Release
from tasks.policy import KEEP, step
from tasks.tools import tools


async def see(run: Release) -> list[Request]:
    """The open requests of a release, marked as seen."""
    async with tools(run) as core:
        return await requests.see(core.database, run)


@step(KEEP, "Answer what people have asked for")
async def answer(run: Release, sentence: str) -> None:
    """Answer every open request with what happened."""
    async with tools(run) as core:
        await requests.answer(core.database, run, sentence)


@step(KEEP, "Abort the release")
async def abort(run: Release, sentence: str) -> Release:
    """End a release that has changed no host; its unfinished dead letters are restored."""
    async with tools(run) as core:
        await open_operations.settle(core, run)
        restored = await restore_unsettled(core, run)
        suffix = f"; {restored} unfinished dead letters restored" if restored else ""
        return await releases.enter(
            core.database, run, Phase.ABORTED, sentence=f"{sentence}; no host was changed{suffix}"
        )
