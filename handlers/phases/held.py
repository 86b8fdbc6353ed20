"""Looking at live traffic while a release is held: the new revision runs, and nobody else watches it."""

from __future__ import annotations

from dataclasses import replace

from handlers.core import Core
from handlers.gate.values import Finding
from handlers.notify.tell import tell
from handlers.phases import looking, one_way, surroundings
from handlers.release import due, lock
from handlers.release.controller import controller_name, this_controller
from handlers.release.ledger import releases
from handlers.release.note import HeldBy, PhaseNote
from handlers.release.phase import Phase, Release, Verdict
from handlers.release.topic import Topic


async def look(core: Core, run: Release) -> Release:
    """Look once. A breach begins the way back, which is due at once; a person who holds the release decides alone.

    Raises Locked while somebody carries the release.
    """
    token = await lock.take(
        core.database, run.environment, run.id, controller_name(), controller=this_controller()
    )
    try:
        held = await releases.get(core.database, run.id)
        if not due.is_watched(held):
            return held
        # First, so that an outage of the upstream is told to the gate.
        for page in (await surroundings.once(core, held)).pages:
            await tell(core, run, page.event, page.sentence, subject=page.source, severity=page.severity)
        looker = await looking.begin(core, held)
        left = looker.gate.parameters.watch_s
        judgement = await looker.look(core, held, left=left, steers=False)
        by = due.held_by(await releases.phase_records(core.database, held))
        why_not = await one_way.why_not_back(core.database, held)
        if judgement.finding is not Finding.UNHEALTHY or by is HeldBy.OPERATOR or why_not:
            if judgement.finding is Finding.UNHEALTHY:
                holds = "held by a person" if by is HeldBy.OPERATOR else f"not taken back ({why_not})"
                await tell(core, run, Topic.BREACH, f"it is {holds}, and {judgement.sentence}")
            await releases.note(core.database, held, PhaseNote(looked=judgement.sentence))
            return await releases.get(core.database, run.id)
        note = replace(PhaseNote(finding=judgement.finding), blames_revision=True)
        return await releases.enter(
            core.database,
            held,
            Phase.ROLLING_BACK,
            verdict=Verdict.FAIL,
            sentence=f"while it was held: {judgement.sentence}",
            note=note,
        )
    finally:
        await lock.free(core.database, run.environment, token)
