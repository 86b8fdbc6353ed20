"""The rollback: activate the previous revision, prove that it runs, and quarantine the rolled-back one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from handlers.core import Core
from handlers.errors import DatabaseDown, LockLost, RunbookError
from handlers.host.fleet import roll_out
from handlers.host.operations import OperationResult
from handlers.host.ssh import Shell, open_hosts
from handlers.host.step import HostChange, stop_workers
from handlers.phases.deploy import host_change
from handlers.phases.drain import restore_unsettled
from handlers.phases.probe import prove
from handlers.release import left_behind
from handlers.release.ledger import records
from handlers.release.note import PhaseNote
from handlers.release.phase import Conclusion, Release, Verdict, short


async def conclude(
    core: Core, release: Release, *, activated: Conclusion, why: str, evidence: str
) -> Conclusion:
    """Prove the previous revision on every host, and quarantine the rolled-back one until a person lifts it.

    Passes only when every host answers with the previous revision. The sentence names the dead letters that the
    rolled-back revision has left behind.
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
        sentence += f"; {left_behind.summary(left)}; `{left_behind.command(release)}` redrives them"
    return Conclusion(
        verdict=proven.verdict,
        sentence=sentence,
        note=PhaseNote(why=why, evidence=evidence, activated=activated.sentence),
    )


async def activate_previous(core: Core, release: Release) -> Conclusion:
    """Stop the workers, restore the unfinished dead letters, and activate the previous revision on every host.

    A host that fails does not stop the rollback of the others; the sentence reports each of them.
    """
    change = await host_change(core, release, back=True)
    async with open_hosts(core.environment, connected=False) as shells:
        stopped = await _stop_everywhere(shells, change)
        restored = await restore_unsettled(core, release, workers_stopped=stopped)
        rolled_out = await roll_out(shells, change)
    suffix = f"; {restored} unfinished dead letters restored" if restored else ""
    return Conclusion(verdict=rolled_out.verdict, sentence=rolled_out.sentence + suffix)


async def _stop_everywhere(shells: Sequence[Shell], change: HostChange) -> bool:
    """Stop the workers of all hosts; True only when every one is certainly stopped.

    The deploy that follows finds these operations done, and does not repeat them.
    """
    if not shells[0].environment.services.workers:
        return False
    results = await asyncio.gather(*(stop_workers(shell, change) for shell in shells), return_exceptions=True)
    for result in results:
        if isinstance(result, LockLost | DatabaseDown) or (
            isinstance(result, BaseException) and not isinstance(result, RunbookError)
        ):
            raise result
    return all(isinstance(result, OperationResult) and result.done for result in results)
