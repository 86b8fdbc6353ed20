"""The watch: the outcomes of live traffic since the released workers started."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from handlers.core import Core
from handlers.database import clock
from handlers.database.clock import Moment
from handlers.database.transaction import transaction
from handlers.gate.rules import judge_watch
from handlers.gate.values import Finding, Judgement, Measurement
from handlers.host import health
from handlers.phases import probe
from handlers.phases.measure import concluded, thresholds, traffic_counts
from handlers.queue.event import EntityType
from handlers.queue.look import KnownError, known_errors, outcomes_since
from handlers.release.ledger import dead_letters, releases
from handlers.release.ledger.records import record_judgement
from handlers.release.note import HeldBy, NextLook, PhaseNote
from handlers.release.phase import Conclusion, Phase, Release, Verdict
from handlers.status.lines import age

_BACKLOG = timedelta(hours=1)
"""So long before the switch an event may have come in: while the workers were stopped nobody took it."""
SET_SECONDS = 5.0
"""A clock that gained more than this between two looks was set: no clock drifts that fast."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """How long the watch lasts, how often it measures, and how much of it is over, in runbook seconds."""

    since: datetime
    """Live events that were first taken since then count: it is when the released workers started, by the database."""
    seconds: float
    interval_seconds: float
    watched_seconds: float
    """Measured, of this controller and of those before it. The time in which nobody watched does not count."""
    moment: Moment
    """The newest look."""
    known: tuple[KnownError, ...] = ()
    """What events had died of before the release."""
    set_ahead_seconds: float = 0.0
    """How far the database's clock was set forward while this controller watched; real seconds."""
    set_at: float | None = None
    """When that was noticed, by the monotonic clock."""

    @property
    def remaining_seconds(self) -> float:
        """How long to watch from now on; not above 0 when the window is over."""
        return self.seconds - self.watched_seconds

    def continued(self, at: Moment, speed: float) -> Window:
        """The window at the next look. *speed* is the number of runbook seconds in a real one."""
        elapsed = at.since(self.moment)
        window = replace(self, moment=at, watched_seconds=self.watched_seconds + elapsed.seconds * speed)
        if elapsed.set_ahead_seconds > SET_SECONDS:
            return replace(window, set_ahead_seconds=elapsed.set_ahead_seconds, set_at=at.monotonic)
        return window

    def late_seconds(self, limit: float) -> float:
        """The age at which an open event is late. After the clock was set forward, every open event looks older."""
        is_fresh = self.set_at is not None and self.moment.monotonic - self.set_at <= limit
        return limit + self.set_ahead_seconds if is_fresh else limit


@dataclass(frozen=True, kw_only=True)
class Look:
    """One measurement of the watch, and the window after it."""

    conclusion: Conclusion
    window: Window
    ends: bool
    """Whether the watch ends here: at a breach, or when it cannot measure."""


async def begin(core: Core, release: Release) -> Window:
    """The window. A watch that was interrupted continues with what the ledger says about its progress."""
    records = await releases.phase_records(core.database, release)
    watching = [record for record in records if record.phase is Phase.WATCHING]
    probing = [record for record in records if record.phase is Phase.PROBING]
    deploying = [record for record in records if record.phase is Phase.DEPLOYING]
    former = [
        (EntityType(event.entity_type), event.former["error_message"])
        for event in await dead_letters.events(core.database, release)
        if event.former.get("error_message") and event.entity_type in list(EntityType)
    ]
    async with transaction(core.database) as tx:
        known = await known_errors(
            tx, before=(deploying or probing or watching)[-1].started_at, former=former
        )
    limits = core.environment.watch
    window = Window(
        known=known,
        since=(probing or watching)[-1].started_at,
        seconds=limits.window_seconds,
        interval_seconds=limits.interval_seconds,
        watched_seconds=watching[-1].note.watched_seconds or 0.0,
        moment=await clock.moment(core.database),
    )
    await releases.note(core.database, release, _progress(core, window))
    return window


async def look(core: Core, release: Release, window: Window) -> Look:
    """Measure once, judge, and record the judgement with its inputs and the progress of the watch.

    Raises DatabaseDown when the database does not answer: the release is not blamed, and the step waits for it.
    """
    window = window.continued(await clock.moment(core.database), core.clock.speed)
    if window.moment.database < window.since:
        return Look(conclusion=_clock_set_back(window), window=window, ends=True)
    judgement = await _judge(core, release, window)
    await record_judgement(core.database, release, judgement)
    hosts = probe.host_notes(await health.look_once(core, release.to_revision))
    note = replace(_progress(core, window), looked=judgement.sentence, hosts=hosts)
    await releases.note(core.database, release, note)
    conclusion = concluded(judgement, PhaseNote(finding=judgement.finding))
    return Look(conclusion=conclusion, window=window, ends=conclusion.verdict is Verdict.FAIL)


async def conclude(core: Core, release: Release, window: Window) -> Conclusion:
    """Judge the watch by its last measurement. Too few events, or none, are inconclusive: a person decides.

    So is a host that is not healthy within the limit of a probe: the host itself may be the cause, so it is neither a
    pass nor a breach, and is tried again.
    """
    judgement = await _judge(core, release, window)
    await record_judgement(core.database, release, judgement)
    conclusion = concluded(judgement, PhaseNote(finding=judgement.finding))
    verdict, sentence = conclusion.verdict, conclusion.sentence
    measured = f"after {duration(window.watched_seconds)}"
    if window.set_ahead_seconds:
        measured += f" (the database's clock was set forward by {age(window.set_ahead_seconds)} meanwhile)"
    if verdict is Verdict.PASS:
        proven = await health.until_healthy(
            core, release.to_revision, on_look=probe.record_host_notes(core, release)
        )
        if proven.verdict is not Verdict.PASS:
            return Conclusion(
                verdict=Verdict.INCONCLUSIVE,
                sentence=f"{measured}: {sentence}, but {proven.sentence}",
                held_by=HeldBy.HOST,
            )
    hint = (
        "; `runbook resume` watches again, `runbook rollback` rolls back"
        if verdict is Verdict.INCONCLUSIVE
        else ""
    )
    finding = "" if judgement.finding is Finding.HEALTHY else f"{judgement.finding}: "
    return Conclusion(
        verdict=verdict, sentence=f"{measured}: {finding}{sentence}{hint}", note=conclusion.note
    )


def duration(seconds: float) -> str:
    """A measured duration: `30 min`, `30.4 min`, below two minutes `45 s`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f}".removesuffix(".0") + " min"


def _progress(core: Core, window: Window) -> PhaseNote:
    """The progress of the watch, for the status view and for the controller that continues it."""
    at = window.moment.database
    pause = min(window.interval_seconds, max(0.0, window.remaining_seconds))
    return PhaseNote(
        window_seconds=window.seconds,
        watched_seconds=round(window.watched_seconds, 3),
        watched_at=at,
        next=NextLook(what="next look", at=at + core.clock.real(pause)),
    )


def _clock_set_back(window: Window) -> Conclusion:
    behind = age((window.since - window.moment.database).total_seconds())
    return Conclusion(
        verdict=Verdict.INCONCLUSIVE,
        sentence=f"the database's clock was set back: it is {behind} before the time at which the released workers "
        "started, so new events cannot be told from older ones. Fix its time service, then `runbook resume` watches "
        "again, `runbook rollback` rolls back",
    )


async def _judge(core: Core, release: Release, window: Window) -> Judgement:
    replayed = [event.event_id for event in await dead_letters.events(core.database, release)]
    async with transaction(core.database) as tx:
        counts = await outcomes_since(
            tx,
            since=window.since,
            arrived_since=window.since - _BACKLOG,
            excluding=replayed,
            late_seconds=window.late_seconds(core.environment.watch.late_seconds),
            known=window.known,
        )
    baseline = (await releases.plan(core.database, release.id)).baseline
    return judge_watch(
        Measurement(counts=traffic_counts(counts), baseline=baseline), thresholds(core.environment)
    )
