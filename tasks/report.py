"""The step that writes the report; a report that cannot be written never changes how a release ended."""

from __future__ import annotations

import logging

from handlers.release.phase import Release
from handlers.report import gather
from tasks.policy import LOOK, step
from tasks.tools import tools

log = logging.getLogger(__name__)


async def write(run: Release) -> None:
    """Write the verification report beside the release, as far as it can be."""
    try:
        await _write(run)
    except Exception as error:
        log.warning("the report of release %s could not be written: %s", run.id, error)


@step(LOOK)
async def _write(run: Release) -> None:
    async with tools(run) as core:
        await gather.write(core, run)
