"""The watch: looks at live traffic until enough time has passed in which nothing was wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from handlers.core import Core
from handlers.database import clock
from handlers.database.clock import Moment
from handlers.gate.values import Finding
from handlers.host import health
from handlers.phases import probe
from handlers.phases.looker import SET_SECONDS, Looker
from handlers.phases.measure import concluded
from handlers.release.ledger import releases
from handlers.release.note import HeldBy, NextLook, PhaseNote
from handlers.release.phase import Conclusion, Phase, Release, Verdict
from handlers.status.wrapping import age

EXTENDED = 1 / 3
"""A watch that is over and not decided goes on for this part of its time, if live events come: a blip near its end, or
a few more clean records, should not need a person."""
STUCK_TIMES = 2
"""It goes on for so many times the age of a stuck event at least: what workers that hang took last must show."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """How long the watch lasts, how often it measures, and how much of it is over, in runbook seconds."""

    since: datetime
    """When the released workers started, by the database."""
    seconds: float
    interval_seconds: float
    watched_seconds: float
    """Measured, of this controller and of those before it. The time in which nobody watched does not count."""
    moment: Moment
    """The newest look."""
    set_ahead_seconds: float = 0.0
    """How far the database's clock was set forward while this controller watched; real seconds."""
    finding: Finding = Finding.NO_DATA
    """The newest one."""
    stuck_seconds: float = 0.0
    """The age at which an unfinished event is stuck."""

    @property
    def remaining_seconds(self) -> float:
        """How long to watch from now on; not above 0 when the window is over."""
        return self.seconds - self.watched_seconds

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be waited for any more."""
        if self.remaining_seconds > 0:
            return False
        more = max(self.seconds * EXTENDED, STUCK_TIMES * self.stuck_seconds)
        return self.finding is not Finding.INCONCLUSIVE or self.watched_seconds >= self.seconds + more

    def continued(self, at: Moment, speed: float, *, counts: bool = True) -> Window:
        """The window at the next look. *speed* is the number of runbook seconds in a real one. Without *counts* the
        time since the last look is no part of the watch: a person held everything.
        """
        elapsed = at.since(self.moment)
        watched = self.watched_seconds + (elapsed.seconds * speed if counts else 0.0)
        window = replace(self, moment=at, watched_seconds=watched)
        if elapsed.set_ahead_seconds > SET_SECONDS:
            return replace(window, set_ahead_seconds=elapsed.set_ahead_seconds)
        return window


@dataclass(frozen=True, kw_only=True)
class Look:
    """One measurement of the watch, and the window after it."""

    conclusion: Conclusion
    window: Window
    ends: bool
    """Whether the watch ends here: at a breach, or when it cannot measure."""


async def begin(core: Core, release: Release, looker: Looker) -> Window:
    """The window. A watch that was interrupted continues with what the ledger says about its progress."""
    records = await releases.phase_records(core.database, release)
    watching = [record for record in records if record.phase is Phase.WATCHING]
    limits = core.environment.watch
    window = Window(
        since=looker.facts.timeline.switched_at,
        seconds=limits.window_seconds,
        interval_seconds=limits.interval_seconds,
        watched_seconds=watching[-1].note.watched_seconds or 0.0,
        moment=await clock.moment(core.database),
        stuck_seconds=looker.gate.parameters.stuck_s,
    )
    await releases.note(core.database, release, _progress(core, window))
    return window


async def look(core: Core, release: Release, window: Window, looker: Looker) -> Look:
    """Look at the live traffic every ten runbook seconds until the next interval is over, then at the hosts as well.

    Raises DatabaseDown when the database does not answer: the release is not blamed, and the step waits for it.
    """
    until = window.watched_seconds + window.interval_seconds
    began = window
    while True:
        pause = min(looker.gate.parameters.tick_s, window.interval_seconds)
        if window.remaining_seconds > 0:
            pause = min(pause, window.remaining_seconds)
        await core.clock.sleep(pause)
        window = window.continued(
            await clock.moment(core.database), core.clock.speed, counts=not looker.stands_still
        )
        if window.moment.database < window.since:
            return Look(conclusion=_clock_set_back(window), window=window, ends=True)
        judgement = await looker.look(core, release, left=window.remaining_seconds)
        window = replace(window, finding=judgement.finding)
        note = replace(_progress(core, window), looked=judgement.sentence)
        waited = (window.moment.monotonic - began.moment.monotonic) * core.clock.speed
        if judgement.finding is Finding.UNHEALTHY or window.is_over:
            break
        if window.watched_seconds >= until or waited >= window.interval_seconds:
            break
        await releases.note(core.database, release, note)
    hosts = probe.host_notes(await health.look_once(core, release.to_revision))
    await releases.note(core.database, release, replace(note, hosts=hosts))
    conclusion = concluded(judgement, PhaseNote(finding=judgement.finding))
    return Look(conclusion=conclusion, window=window, ends=conclusion.verdict is Verdict.FAIL)


async def conclude(core: Core, release: Release, window: Window, looker: Looker) -> Conclusion:
    """Judge the watch by its last measurement. Too few events, or none, are inconclusive: a person decides.

    So is a host that is not healthy within the limit of a probe: the host itself may be the cause, so it is neither a
    pass nor a breach, and is tried again.
    """
    judgement = looker.judgement or await looker.look(core, release, left=window.remaining_seconds)
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
