"""The step that writes the report. A report that cannot be written does not change the outcome of a release."""

from __future__ import annotations

import logging

from handlers.release.phase import Release
from handlers.report import gather
from tasks.policy import LOOK, step
from tasks.tools import tools

log = logging.getLogger(__name__)


async def write(run: Release) -> None:
    """Write the verification report; an error is logged and not raised."""
    try:
        await _write(run)
    except Exception as error:
        log.warning("the report of release %s could not be written: %s", run.id, error)


@step(LOOK)
async def _write(run: Release) -> None:
    async with tools(run) as core:
        await gather.write(core, run)
