"""The watch: measure and judge live traffic at each interval, for the environment's window."""

from __future__ import annotations

from handlers.core import Clock
from handlers.release.phase import Conclusion, Release
from tasks import watch


async def watch_window(run: Release) -> Conclusion:
    """Measure at every interval until the window has been watched or the gate finds a breach.

    The progress is kept in the ledger, so a watch that was killed continues its window instead of starting again.
    """
    clock = Clock(speed=run.speed)
    window = await watch.begin(run)
    while window.remaining_seconds > 0:
        await clock.sleep(min(window.remaining_seconds, window.interval_seconds))
        seen = await watch.look(run, window)
        if seen.ends:
            return seen.conclusion
        window = seen.window
    return await watch.conclude(run, window)
