"""The end of a rollback: is the former revision really back, and what is kept about why."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from handlers.core import Core
from handlers.errors import LockLost, RunbookError
from handlers.host.fleet import roll_out
from handlers.host.operations import OperationResult
from handlers.host.ssh import Shell, open_hosts
from handlers.host.step import HostChange, stop_workers
from handlers.phases.deploy import host_change
from handlers.phases.drain import give_back
from handlers.phases.probe import prove
from handlers.release import left_behind
from handlers.release.ledger import records
from handlers.release.note import PhaseNote
from handlers.release.phase import Conclusion, Release, Verdict, short


async def conclude(
    core: Core, release: Release, *, activated: Conclusion, why: str, evidence: str
) -> Conclusion:
    """Prove the former revision on every host, and set the one that was left aside until a person lifts that.

    Passes only when every host answers with the former revision; what was said on the way is in the sentence, and so is
    what the one that was left has left behind.
    """
    proven = await prove(core, release, release.from_revision)
    if release.from_revision != release.to_revision:
        await records.quarantine(core.database, release, why)
    if proven.verdict is Verdict.PASS:
        sentence = f"back on {short(release.from_revision)}: {proven.sentence}; because {why}"
    else:
        sentence = (
            f"not proven back on {short(release.from_revision)}: {proven.sentence}; {activated.sentence}"
        )
    left = await left_behind.kinds(core.database, release)
    if left:
        sentence += f"; {left_behind.summary(left)}; `{left_behind.command(release)}` sends them back"
    return Conclusion(
        verdict=proven.verdict,
        sentence=sentence,
        note=PhaseNote(why=why, evidence=evidence, activated=activated.sentence),
    )


async def activate_previous(core: Core, release: Release) -> Conclusion:
    """Stop the workers, put back what they had not finished, and activate the former revision everywhere.

    A host that fails does not keep the others from going back; the sentence tells about each.
    """
    change = await host_change(core, release, back=True)
    async with open_hosts(core.environment, connected=False) as shells:
        stopped = await _stop_everywhere(shells, change)
        returned = await give_back(core, release, workers_stopped=stopped)
        back = await roll_out(shells, change)
    put_back = f"; {returned} unfinished dead letters are back as they were" if returned else ""
    return Conclusion(verdict=back.verdict, sentence=back.sentence + put_back)


async def _stop_everywhere(shells: Sequence[Shell], change: HostChange) -> bool:
    """Whether certainly no worker runs any more. The deploy that follows finds these operations done."""
    if not shells[0].environment.services.workers:
        return False
    ends = await asyncio.gather(*(stop_workers(shell, change) for shell in shells), return_exceptions=True)
    for end in ends:
        if isinstance(end, LockLost) or (
            isinstance(end, BaseException) and not isinstance(end, RunbookError)
        ):
            raise end
    return all(isinstance(end, OperationResult) and end.done for end in ends)
