"""The course of success, depth and age over the last day, or from a little before a release on, with its bars."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database import clock
from handlers.database.jsonable import as_plain
from handlers.environment.bars import Bars
from handlers.release.phase import Release
from handlers.report import charts, sections
from handlers.report.charts import Picture
from handlers.report.sections import Span

DAY = timedelta(days=1)
BEFORE_SHARE, BEFORE_LEAST = 0.25, timedelta(minutes=2)
"""The time before a release that is drawn with it: what was normal."""
AFTER = timedelta(hours=2)
"""So long after its end the release is still what the picture is about."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The pictures, and their points as numbers."""

    pictures: list[Picture]
    """Empty without the extra [charts], or without an event."""
    course: list[dict[str, Any]]
    of_release: bool
    """Whether they begin a little before the release, and not a day ago."""


async def of_day(tx: AsyncConnection, environment: str) -> dict[str, Any]:
    """Success by type, times, and the course of the last day."""
    until = await clock.now(tx)
    return await _course(tx, environment, until - DAY, until)


async def of_release(tx: AsyncConnection, environment: str, run: Release | None) -> dict[str, Any]:
    """The same from a little before the release on; of the day where it is long over, or where there is none."""
    until = await clock.now(tx)
    since = until - DAY
    if run is not None and (run.finished_at is None or until - run.finished_at < AFTER):
        before = max(BEFORE_LEAST, (until - run.created_at) * BEFORE_SHARE)
        since = max(since, run.created_at - before)
    return await _course(tx, environment, since, until)


async def draw(course: Mapping[str, Any], bars: Bars) -> Drawn:
    """Draw a course, as the report does."""
    values = {
        "course": course["course"],
        "moments": course["moments"],
        "bars": {name: getattr(bars, name) for _, _, name, _ in charts.SPECS},
    }
    # The first picture takes a second of the processor.
    pictures = await asyncio.to_thread(charts.pictures, as_plain(values))
    return Drawn(
        pictures=pictures, course=course["course"], of_release=course["until"] - course["since"] < DAY
    )


async def _course(tx: AsyncConnection, environment: str, since: datetime, until: datetime) -> dict[str, Any]:
    span = Span(since=since, until=until)
    found = await sections.course_of(tx, span)
    return {
        "since": since,
        "until": until,
        "moments": await sections.moments(tx, environment, span),
        **found,
    }
