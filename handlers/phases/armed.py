"""The armed rollback: while a release is watched, each host is asked whether it still has the rollback target."""

from __future__ import annotations

import asyncio
import logging

from handlers.core import Core
from handlers.errors import LEDGER_AWAY, RunbookError
from handlers.host.facts import inspect
from handlers.host.ssh import Shell, open_hosts
from handlers.notify.tell import tell
from handlers.release.ledger import releases
from handlers.release.note import ArmedNote, PhaseNote
from handlers.release.phase import Release
from handlers.release.topic import Topic

log = logging.getLogger(__name__)


async def check(core: Core, release: Release) -> ArmedNote:
    """Ask every host for the previous revision, and note the answers for the status view. Changes nothing.

    A host without it cannot go back by itself: a person is told.
    """
    async with open_hosts(core.environment, connected=False) as shells:
        faults = await asyncio.gather(*(_fault(shell, release.from_revision) for shell in shells))
    missing = [fault for fault in faults if fault]
    present = f"present on {len(faults) - len(missing)} of {len(faults)} hosts"
    armed = ArmedNote(ok=not missing, sentence="; ".join([present, *missing]))
    if missing:
        sentence = f"the rollback is not armed on every host: {armed.sentence}"
        await tell(core, release, Topic.NOT_ARMED, sentence)
    try:
        await releases.note(core.database, release, PhaseNote(armed=armed))
    except LEDGER_AWAY as error:
        # It is looked at again: nothing waits for a note.
        log.warning("the check of the rollback target could not be noted: %s", error)
    return armed


async def _fault(shell: Shell, revision: str) -> str:
    """Why the host could not go back to the revision now; empty when it could."""
    try:
        facts = await inspect(shell, revision)
    except RunbookError as error:
        return str(error)
    if facts.problem:
        return f"{shell.host.name}: {facts.problem}"
    return "" if facts.present else f"{shell.host.name} does not have it any more"
