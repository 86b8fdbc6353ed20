"""The watch: what became of live traffic since the released workers took over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from handlers.core import Core
from handlers.database.transaction import transaction
from handlers.errors import DatabaseDown
from handlers.gate.rules import judge_watch
from handlers.gate.values import Finding, Judgement, Measurement
from handlers.host import health
from handlers.phases import probe
from handlers.phases.measure import concluded, of_traffic, thresholds
from handlers.queue.look import outcomes_since
from handlers.release.ledger import dead_letters, releases
from handlers.release.ledger.records import record_judgement
from handlers.release.note import NextLook, PhaseNote
from handlers.release.phase import Conclusion, Phase, Release, Verdict


@dataclass(frozen=True, kw_only=True)
class Window:
    """When the watch began, how long it lasts and how often it looks, in runbook seconds."""

    started_at: datetime
    since: datetime
    """Live events that arrived from here on count: since the released workers took over."""
    seconds: float
    interval_seconds: float


async def begin(core: Core, release: Release) -> Window:
    """The window as the ledger has it, so that a restarted watch goes on where it stood."""
    records = await releases.phase_records(core.database, release)
    watching = [record for record in records if record.phase is Phase.WATCHING]
    probing = [record for record in records if record.phase is Phase.PROBING]
    limits = core.environment.watch
    await releases.note(
        core.database,
        release,
        PhaseNote(window_seconds=limits.window_seconds, next=_next(core, limits.interval_seconds)),
    )
    return Window(
        started_at=watching[-1].started_at,
        since=(probing or watching)[-1].started_at,
        seconds=limits.window_seconds,
        interval_seconds=limits.interval_seconds,
    )


async def look(core: Core, release: Release, window: Window) -> Conclusion:
    """Measure once, judge, and keep the judgement with its inputs.

    A database that does not answer is not the release's fault: the finding is then SOURCE_DOWN, and there is
    nowhere to keep it.
    """
    try:
        judgement = await _judge(core, release, window)
        await record_judgement(core.database, release, judgement)
        hosts = await health.look_once(core, release.to_revision)
        await releases.note(
            core.database,
            release,
            PhaseNote(
                looked=judgement.sentence,
                next=_next(core, window.interval_seconds),
                hosts=probe.as_noted(hosts),
            ),
        )
    except DatabaseDown as error:
        judgement = judge_watch(Measurement(source_down=str(error)), thresholds(core.environment))
    return concluded(judgement, PhaseNote(finding=judgement.finding))


async def conclude(core: Core, release: Release, window: Window) -> Conclusion:
    """The last look decides. Too little to tell, or nothing at all, is not a pass: a person decides.

    Nor is a host that does not answer as it did: that may be the host's own trouble, so it is no breach either.
    """
    judgement = await _judge(core, release, window)
    await record_judgement(core.database, release, judgement)
    told = concluded(judgement, PhaseNote(finding=judgement.finding))
    minutes = f"after {window.seconds / 60:g} min"
    unwell = [host for host in await health.look_once(core, release.to_revision) if not host.good]
    if told.verdict is Verdict.PASS and unwell:
        faults = "; ".join(f"{host.host}: {host.summary}" for host in unwell)
        return Conclusion(verdict=Verdict.INCONCLUSIVE, sentence=f"{minutes}: {told.sentence}, but {faults}")
    hint = "; resume to watch once more, or roll back" if told.verdict is Verdict.INCONCLUSIVE else ""
    found = "" if judgement.finding is Finding.HEALTHY else f"{judgement.finding}: "
    return Conclusion(
        verdict=told.verdict, sentence=f"{minutes}: {found}{told.sentence}{hint}", note=told.note
    )


def _next(core: Core, seconds: float) -> NextLook:
    """When the next look is, for whoever watches."""
    return NextLook(what="next look", at=core.clock.ahead(seconds))


async def _judge(core: Core, release: Release, window: Window) -> Judgement:
    replayed = [event.event_id for event in await dead_letters.events(core.database, release)]
    async with transaction(core.database) as tx:
        counted = await outcomes_since(
            tx,
            since=window.since,
            excluding=replayed,
            late_seconds=core.environment.watch.late_seconds,
        )
    before = (await releases.plan(core.database, release.id)).baseline
    return judge_watch(Measurement(counts=of_traffic(counted), baseline=before), thresholds(core.environment))
