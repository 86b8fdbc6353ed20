"""A running release on the Prefect page: sentences of the live view, steps on hosts, tables, progress and plan.

All of it is read from the ledger, with the functions of the live view. It neither ends nor delays a release.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

from flows.cli.plan_text import lines as plan_lines
from flows.cli.progress import Progress
from flows.shown_hosts import HostSteps
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release
from handlers.status import snapshot
from handlers.status.view import StatusView
from tasks import page, page_artifacts
from tasks.page import Page
from tasks.tools import tools

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often the ledger is read for the page. Real seconds."""
AGAIN_SECONDS = 5.0
"""The pause after a look that failed."""
WIDTH = 100
"""Columns of the plan on the page."""
END_SECONDS = 5.0
"""How long the last look may take, at the end of a release."""


@asynccontextmanager
async def shown(run: Release, kind: str = "release") -> AsyncIterator[None]:
    """Show the release on the Prefect page while the block runs, and once more at its end; nothing without Prefect."""
    async with page.opened(run, kind) as opened:
        if opened is None:
            yield
            return
        mirror = _Mirror(opened, run)
        showing = asyncio.create_task(mirror.keep_showing())
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.wait({showing}, timeout=END_SECONDS)
            with suppress(Exception):
                async with asyncio.timeout(END_SECONDS):
                    await mirror.show_once()
            await mirror.end()


async def _show_plan(opened: Page, run: Release, text: str) -> UUID | None:
    return await page_artifacts.show_text(opened, run, "plan", text)


class _Mirror:
    """What of a release the page has already."""

    def __init__(self, opened: Page, run: Release) -> None:
        self._page = opened
        self._run = run
        self._progress = Progress()
        self._hosts = HostSteps(opened)
        self._shown: dict[str, object] = {}
        self._bars: dict[Phase, UUID] = {}
        self._failed = False

    async def keep_showing(self) -> None:
        """Show what is new, until cancelled. A look that fails is tried again; only the first one is logged."""
        while True:
            try:
                async with tools(self._run) as core:
                    await self._show_plan(core.database)
                    while True:
                        await self._show(
                            await snapshot.read(core.database, self._run.environment, self._run.id)
                        )
                        await asyncio.sleep(POLL_SECONDS)
            except Exception as error:
                level = logging.DEBUG if self._failed else logging.WARNING
                self._failed = True
                log.log(level, "the Prefect page of release %s is not up to date: %s", self._run.id, error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def show_once(self) -> None:
        """Show the state at the end."""
        async with tools(self._run) as core:
            await self._show(await snapshot.read(core.database, self._run.environment, self._run.id))

    async def end(self) -> None:
        """End the steps on hosts whose end nobody has seen."""
        await self._hosts.end()

    async def _show(self, view: StatusView) -> None:
        for line in self._progress.lines(view):
            # "18:09:27 deploy: switch of web-1 running" is a line of the deploy's run, too.
            _, _, after_clock = line.partition(" ")
            page.say(line, *self._page.ids(after_clock.partition(" ")[0].rstrip(":")))
        self._hosts.show(view)
        await self._once("hosts", page_artifacts.host_rows(view), page_artifacts.show_hosts)
        await self._once("batches", page_artifacts.batch_rows(view), page_artifacts.show_batches)
        await self._show_bar(view)

    async def _show_plan(self, database: Any) -> None:
        plan = await releases.plan(database, self._run.id)
        await self._once("plan", page_artifacts.fenced("\n".join(plan_lines(plan, WIDTH))), _show_plan)

    async def _once(self, what: str, value: object, show: Any) -> None:
        """Show a value when it is another than the one that is shown."""
        if value and self._shown.get(what) != value and await show(self._page, self._run, value) is not None:
            self._shown[what] = value

    async def _show_bar(self, view: StatusView) -> None:
        """The progress bar of a drain or a watch; one for each phase, updated in place."""
        done: Mapping[Phase, float | None] = {
            phase: page_artifacts.percent_of(view, phase) for phase in (Phase.DRAINING, Phase.WATCHING)
        }
        for phase, percent in done.items():
            if percent is None or self._shown.get(f"bar {phase}") == percent:
                continue
            bar = await page_artifacts.show_bar(self._page, self._run, phase, percent, self._bars.get(phase))
            if bar is not None:
                self._bars[phase] = bar
                self._shown[f"bar {phase}"] = percent
