"""The watch: the outcomes of live traffic since the released workers started."""

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
from handlers.phases.measure import concluded, thresholds, traffic_counts
from handlers.queue.look import outcomes_since
from handlers.release.ledger import dead_letters, releases
from handlers.release.ledger.records import record_judgement
from handlers.release.note import NextLook, PhaseNote
from handlers.release.phase import Conclusion, Phase, Release, Verdict


@dataclass(frozen=True, kw_only=True)
class Window:
    """When the watch began, how long it lasts and how often it measures, in runbook seconds."""

    started_at: datetime
    since: datetime
    """Live events that arrived since then count: it is when the released workers started."""
    seconds: float
    interval_seconds: float


async def begin(core: Core, release: Release) -> Window:
    """The window, with its start from the ledger, so that a restarted watch continues where it was."""
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
    """Measure once, judge, and record the judgement with its inputs.

    When the database does not answer, the finding is SOURCE_DOWN: the release is not blamed, and nothing is recorded.
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
                hosts=probe.host_notes(hosts),
            ),
        )
    except DatabaseDown as error:
        judgement = judge_watch(Measurement(source_down=str(error)), thresholds(core.environment))
    return concluded(judgement, PhaseNote(finding=judgement.finding))


async def conclude(core: Core, release: Release, window: Window) -> Conclusion:
    """Judge the watch by its last measurement. Too few events, or none, are inconclusive: a person decides.

    So is an unhealthy host: the host itself may be the cause, so it is neither a pass nor a breach.
    """
    judgement = await _judge(core, release, window)
    await record_judgement(core.database, release, judgement)
    conclusion = concluded(judgement, PhaseNote(finding=judgement.finding))
    verdict, sentence = conclusion.verdict, conclusion.sentence
    minutes = f"after {window.seconds / 60:g} min"
    unhealthy = [host for host in await health.look_once(core, release.to_revision) if not host.good]
    if verdict is Verdict.PASS and unhealthy:
        faults = "; ".join(f"{host.host}: {host.summary}" for host in unhealthy)
        return Conclusion(verdict=Verdict.INCONCLUSIVE, sentence=f"{minutes}: {sentence}, but {faults}")
    hint = (
        "; `runbook resume` watches again, `runbook rollback` rolls back"
        if verdict is Verdict.INCONCLUSIVE
        else ""
    )
    finding = "" if judgement.finding is Finding.HEALTHY else f"{judgement.finding}: "
    return Conclusion(verdict=verdict, sentence=f"{minutes}: {finding}{sentence}{hint}", note=conclusion.note)


def _next(core: Core, seconds: float) -> NextLook:
    """The time of the next measurement, for the status view."""
    return NextLook(what="next look", at=core.clock.ahead(seconds))


async def _judge(core: Core, release: Release, window: Window) -> Judgement:
    replayed = [event.event_id for event in await dead_letters.events(core.database, release)]
    async with transaction(core.database) as tx:
        counts = await outcomes_since(
            tx,
            since=window.since,
            excluding=replayed,
            late_seconds=core.environment.watch.late_seconds,
        )
    baseline = (await releases.plan(core.database, release.id)).baseline
    return judge_watch(
        Measurement(counts=traffic_counts(counts), baseline=baseline), thresholds(core.environment)
    )
