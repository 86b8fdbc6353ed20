"""The step that writes the report. A report that cannot be written does not change the outcome of a release."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from handlers.release.phase import Release
from handlers.report import gather
from tasks.page import Page, page
from tasks.page_artifacts import show_text
from tasks.policy import LOOK, step
from tasks.tools import tools

log = logging.getLogger(__name__)

SHOW_SECONDS = 20.0
"""How long the end of a release waits for the Prefect page: a dead server would be tried for minutes."""


async def write(run: Release) -> None:
    """Write the verification report, and show it on the Prefect page; an error is logged and not raised."""
    try:
        text = await _write(run)
        if (shown := page()) is not None:
            await _show(shown, run, text)
    except Exception as error:
        log.warning("the report of release %s could not be written: %s", run.id, error)


@step(LOOK, "Write the report")
async def _write(run: Release) -> str:
    """Write the files; returns the Markdown, and where the files are."""
    async with tools(run) as core:
        paths = await gather.write(core, run)
    return (
        f"{paths['md'].read_text(encoding='utf-8')}\n\nThe files of this report: `{paths['html'].parent}`\n"
    )


async def _show(shown: Page, run: Release, text: str) -> None:
    # Prefect being away says nothing about the release.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(SHOW_SECONDS):
            await show_text(shown, run, "report", text)
