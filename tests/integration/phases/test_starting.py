"""A look at a release whose workers are being started, on a real queue."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from handlers.core import Core
from handlers.gate.traffic import STARTED, STARTING
from handlers.gate.values import Finding
from handlers.phases import looking
from handlers.release.ledger import records, releases
from handlers.release.phase import Phase, Release, Verdict
from tests.integration.phases.looks import look, looked_at
from tests.integration.queue.events import event

DEADLINE_SECONDS = 60
A_MINUTE_LATER = """UPDATE runbook.phase_record SET started_at = started_at - interval '70 s',
    finished_at = finished_at - interval '70 s'"""
FORGET_THE_CANARY = "DELETE FROM runbook.judgement WHERE phase = 'canary'"


async def untaken(core: Core, run: Release) -> int:
    """What a controller that goes on from the ledger holds against the release: free for too long, and not taken."""
    looker = await looking.begin(core, run)
    await look(core, run, looker)
    return len(list(looker.gate.holds.untaken(looker.now, DEADLINE_SECONDS)))


async def test_what_waits_for_slow_workers_counts_from_when_they_run(
    tmp_path: Path, database_url: str
) -> None:
    """It waits for longer than the deadline. In the probe nothing is decided, and a minute after it what the gate
    lets through counts.
    """
    async with looked_at(tmp_path, database_url, since=90, phase=Phase.PROBING) as (core, run, looker):
        for number in range(12):
            await event(core.database, str(number), age=100)
        found = await look(core, run, looker)
        assert (found.finding, "are being started" in found.sentence) == (Finding.NO_DATA, True)
        run = await releases.enter(core.database, run, Phase.CANARY, verdict=Verdict.PASS)
        assert await untaken(core, run) == 0
        async with core.database.begin() as tx:
            for statement in (A_MINUTE_LATER, FORGET_THE_CANARY):
                await tx.execute(text(statement))
        assert await untaken(core, run) >= looker.gate.parameters.probe
        looks = await records.judgements(core.database, run)
        told = [fact["ev"] for each in looks for fact in each.inputs["facts"]]
        assert (told.count(STARTING), told.count(STARTED)) == (1, 1)
