"""The watch: measure and judge live traffic at each interval, for the environment's window."""

from __future__ import annotations

from handlers.core import Clock
from handlers.release.phase import Conclusion, Release, Verdict
from tasks import watch


async def watch_window(run: Release) -> Conclusion:
    """Measure at every interval until the window has passed or the gate finds a breach.

    The start is kept in the ledger, so a watch that was killed continues its window instead of starting again.
    """
    clock = Clock(speed=run.speed)
    window = await watch.begin(run)
    while (remaining := window.seconds - clock.passed(window.started_at)) > 0:
        await clock.sleep(min(remaining, window.interval_seconds))
        conclusion = await watch.look(run, window)
        if conclusion.verdict is Verdict.FAIL:
            return conclusion
    return await watch.conclude(run, window)
