"""The step that writes the report. A report that cannot be written does not change the outcome of a release."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re

from prefect.artifacts import acreate_markdown_artifact
from prefect.context import FlowRunContext

from handlers.release.phase import Release
from handlers.report import gather
from tasks.policy import LOOK, step
from tasks.tools import tools

log = logging.getLogger(__name__)

ARTIFACT_MAX = 200_000
"""Characters of the report on the Prefect page. The file has all of it."""
SHOW_SECONDS = 5.0
"""How long the end of a release waits for the Prefect page: a dead server would be tried for minutes."""


async def write(run: Release) -> None:
    """Write the verification report, and show it on the Prefect page; an error is logged and not raised."""
    try:
        text = await _write(run)
        if FlowRunContext.get() is not None:
            await _show(run, text)
    except Exception as error:
        log.warning("the report of release %s could not be written: %s", run.id, error)


@step(LOOK)
async def _write(run: Release) -> str:
    """Write the files; the Markdown is returned."""
    async with tools(run) as core:
        paths = await gather.write(core, run)
    return paths["md"].read_text(encoding="utf-8")


async def _show(run: Release, text: str) -> None:
    key = re.sub(r"[^a-z0-9]+", "-", f"report-{run.environment}".lower()).strip("-")
    # Prefect being away says nothing about the release.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(SHOW_SECONDS):
            await acreate_markdown_artifact(
                key=key, markdown=text[:ARTIFACT_MAX], description=f"Report of release {run.id}: {run.phase}"
            )
