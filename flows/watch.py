"""The watch: judge live traffic for the environment's window."""

from __future__ import annotations

from handlers.release.phase import Conclusion, Release
from tasks import looking, watch


async def watch_window(run: Release) -> Conclusion:
    """Look every ten seconds until the window has been watched or the gate finds a breach.

    The progress is kept in the ledger, so a watch that was killed continues its window instead of starting again.
    """
    looker = await looking.begin(run)
    window = await watch.begin(run, looker)
    while not window.is_over:
        seen = await watch.look(run, window, looker)
        if seen.ends:
            return seen.conclusion
        window = seen.window
    return await watch.conclude(run, window, looker)
