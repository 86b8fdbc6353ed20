"""The watch: look at live traffic for the environment's window; measure, judge, sleep, next."""

from __future__ import annotations

from handlers.core import Clock
from handlers.release.phase import Conclusion, Release, Verdict
from tasks import watch


async def watch_window(run: Release) -> Conclusion:
    """Look at every interval until the window has passed or the gate says no.

    The start is the ledger's, so that a watch that was killed goes on where it stood instead of beginning anew.
    """
    clock = Clock(speed=run.speed)
    window = await watch.begin(run)
    while (left := window.seconds - clock.passed(window.started_at)) > 0:
        await clock.sleep(min(left, window.interval_seconds))
        judged = await watch.look(run, window)
        if judged.verdict is Verdict.FAIL:
            return judged
    return await watch.conclude(run, window)
