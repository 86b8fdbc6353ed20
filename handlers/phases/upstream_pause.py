"""An upstream that is away: a warning before a release, a pause of the drain, and never a reason to roll back."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.core import Core
from handlers.database import clock
from handlers.errors import LEDGER_AWAY
from handlers.host import upstream
from handlers.release.ledger import dead_letters, releases
from handlers.release.note import HeldBy, NextLook, PhaseNote
from handlers.release.phase import Conclusion, Release, Verdict
from handlers.release.planned import Check
from handlers.status.wrapping import age


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Whether a release waits for the upstream, and for how long it may. Runbook seconds."""

    why: str = ""
    """The upstream's answer; empty when nothing waits for it."""
    again_seconds: float = 0.0
    """After this time it is asked again."""
    seconds_max: float = 0.0


async def check(core: Core) -> Check | None:
    """The check of a plan. Only a warning: a release may be planned before the upstream is back."""
    answer = await upstream.confirmed(core)
    if answer is None:
        return None
    consequence = "while it is away nothing is judged, and the drain pauses"
    sentence = answer.sentence if answer.up else f"{answer.sentence}: {consequence}"
    return Check(name="upstream", good=True, warns=not answer.up, sentence=sentence)


async def away(core: Core) -> str:
    """The upstream's failed answers in a sentence; empty when it answers, or when the environment has none."""
    answer = await upstream.confirmed(core)
    return "" if answer is None or answer.up else f"the upstream is away: {answer.sentence}"


async def before_redrive(core: Core, release: Release) -> Pause:
    """Whether what is still to be redriven waits for the upstream; the status view says so.

    Without dead letters left there is nothing to wait for. Raises DatabaseDown.
    """
    settings = core.environment.upstream
    if settings is None or not await dead_letters.undrained(core.database, release, limit=1):
        return Pause()
    pause = Pause(
        why=await away(core),
        again_seconds=settings.interval_seconds,
        seconds_max=settings.pause_seconds_max,
    )
    if pause.why:
        at = await clock.now(core.database) + core.clock.real(pause.again_seconds)
        note = PhaseNote(looked=f"paused: {pause.why}", next=NextLook(what="upstream asked again", at=at))
        await releases.note(core.database, release, note)
    return pause


async def continued(core: Core, release: Release) -> None:
    """Take the pause out of the status view. A note is not worth an error."""
    try:
        await releases.note(core.database, release, PhaseNote(looked="", next=NextLook()))
    except LEDGER_AWAY:
        return


def held(pause: Pause, waited_seconds: float) -> Conclusion:
    """The end of a pause that took too long: the release is held, and tried again like one of a host that is away."""
    return Conclusion(
        verdict=Verdict.INCONCLUSIVE,
        sentence=f"{pause.why} for {age(waited_seconds)}; what is left was not redriven, and goes on when it answers",
        held_by=HeldBy.UPSTREAM,
    )


def excused(failed: Conclusion, why: str) -> Conclusion:
    """A failure while the upstream is away: no evidence against the release, so a person decides."""
    return Conclusion(
        verdict=Verdict.INCONCLUSIVE,
        sentence=f"{failed.sentence}, but {why}, so this is no evidence against the release",
        note=failed.note,
        held_by=HeldBy.GATE,
    )
