"""Waiting for the upstream: nothing is redriven while it is away, and what fails then is no breach."""

from __future__ import annotations

from time import monotonic

from handlers.core import Clock
from handlers.phases.upstream_pause import excused, held
from handlers.release.phase import Conclusion, Release, Verdict
from tasks import upstream


async def until_upstream_answers(run: Release) -> Conclusion | None:
    """Wait while the upstream is away and dead letters are left. None when the drain may go on.

    After upstream.pause_seconds_max the release is held with that reason; it is never rolled back for it.
    """
    clock = Clock(speed=run.speed)
    began = monotonic()
    waits = False
    while (pause := await upstream.before_redrive(run)).why:
        waits = True
        waited = (monotonic() - began) * run.speed
        if waited >= pause.seconds_max:
            return held(pause, waited)
        await clock.sleep(min(pause.again_seconds, pause.seconds_max - waited))
    if waits:
        await upstream.continued(run)
    return None


async def unless_away(run: Release, conclusion: Conclusion) -> Conclusion:
    """The conclusion of replayed dead letters. A failure while the upstream is away only holds the release."""
    if conclusion.verdict is not Verdict.FAIL:
        return conclusion
    why = await upstream.away(run)
    return excused(conclusion, why) if why else conclusion
