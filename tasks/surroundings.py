"""Looking at what is around a release, in the background and for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from handlers.errors import LEDGER_AWAY, RunbookError
from handlers.host.ssh import open_hosts
from handlers.phases import surroundings
from handlers.phases.around_pages import Page
from handlers.phases.around_state import AroundState
from handlers.phases.source_down import to_page
from handlers.release.phase import Release
from handlers.release.topic import Topic
from tasks.tools import tools

log = logging.getLogger(__name__)

TICK_SECONDS = 10.0
"""Runbook seconds between two looks."""
TICK_SECONDS_MIN = 0.5
"""Real seconds."""
AGAIN_SECONDS = 5.0
"""The pause after a look that failed. Real seconds."""


async def look_around(run: Release, page: Callable[[Page], None]) -> None:
    """Look around until it is cancelled, and call *page* with what a person should hear of.

    No step and never retried: nothing here may end, delay or decide a release. While the database is away nothing can
    be measured at all: that is paged at the same deadline as any other source.
    """
    around = _Around(run, page)
    while True:
        try:
            await around.look_on()
        except Exception as error:
            around.failed(error)
            await asyncio.sleep(AGAIN_SECONDS)


class _Around:
    """The looks of one process."""

    def __init__(self, run: Release, page: Callable[[Page], None]) -> None:
        self._run = run
        self._page = page
        self._state: AroundState | None = None
        self._limit_seconds = 300.0
        self._hold = ""
        self._roll_back = ""
        """What could not be asked for yet."""
        self._away_since: float | None = None
        self._away_paged = False

    async def look_on(self) -> None:
        """Look again and again on the same connections. Raises what prevents it."""
        async with (
            tools(self._run) as core,
            open_hosts(core.environment, connected=False) as shells,
        ):
            self._limit_seconds = core.environment.watch.source_down_seconds
            if self._state is None:
                self._state = await surroundings.begin(core, self._run)
            while True:
                seen = await surroundings.look(core, self._run, self._state, shells=shells)
                self._state, self._away_since, self._away_paged = seen.state, None, False
                for each in seen.pages:
                    self._page(each)
                self._roll_back = seen.rolls_back or self._roll_back
                self._hold = seen.holds or self._hold
                if self._roll_back:
                    await surroundings.ask_to_roll_back(core, self._run, self._roll_back)
                elif self._hold:
                    await surroundings.ask_to_hold(core, self._run, self._hold)
                self._roll_back = self._hold = ""
                await surroundings.keep(core, self._run, seen)
                await asyncio.sleep(max(TICK_SECONDS / self._run.speed, TICK_SECONDS_MIN))

    def failed(self, error: Exception) -> None:
        """A look failed. While it is the database, nothing at all can be measured: that is paged at its deadline."""
        if not isinstance(error, RunbookError):
            log.exception("the look around release %s failed", self._run.id)
            return
        # Once for an outage: the steps of the release say it too.
        level = logging.WARNING if self._away_since is None else logging.DEBUG
        log.log(level, "the look around release %s failed: %s", self._run.id, error)
        if not isinstance(error, LEDGER_AWAY):
            return
        now = monotonic()
        self._away_since = now if self._away_since is None else self._away_since
        sentence = to_page(
            "the database",
            str(error),
            down_seconds=(now - self._away_since) * self._run.speed,
            paged=self._away_paged,
            limit_seconds=self._limit_seconds,
        )
        if sentence is not None:
            self._away_paged = True
            self._page(Page(event=Topic.SOURCE_DOWN, source="database", sentence=sentence))
