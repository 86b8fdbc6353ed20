"""Looking at live traffic beside a phase: a breach ends the phase, wherever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from handlers.release.phase import Conclusion, Release
from tasks import looking

STOP_SECONDS = 5.0
"""How long the last look may take. Broken off, it would show as a crash on the Prefect page."""


async def beside(run: Release, work: Callable[[Release], Awaitable[Conclusion]]) -> Conclusion:
    """The conclusion of *work*; or, when live traffic breaks a bar meanwhile, that breach, with the work stopped.

    What the work has sent and is not settled is restored by the rollback.
    """
    looker = await looking.begin(run)
    working = asyncio.ensure_future(work(run))
    looks = asyncio.ensure_future(looking.until_breach(run, looker))
    try:
        await asyncio.wait({working, looks}, return_when=asyncio.FIRST_COMPLETED)
        if looks.done() and not working.done() and (breach := looks.result()) is not None:
            return breach
        conclusion = await working
        looker.stopped.set()
        await asyncio.wait({looks}, timeout=STOP_SECONDS)
        return conclusion
    finally:
        for task in (working, looks):
            task.cancel()
        await asyncio.wait({working, looks})
