"""From what is known of an environment to the answers. Pure: the same values as on the page and in the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from board import models, release_models
from board.alert import Alert
from board.reading import Away, Reading, Source
from handlers.errors import RunbookError
from handlers.measurements.measurement import Measurement
from handlers.measurements.queue_view import QueueView, shares
from handlers.release.phase import Release
from handlers.status.view import StatusView

_SUCCESS = (
    *("success_1h", "success_24h", "failing_1h", "failing_24h", "dead_letters_1h", "dead_letters_24h"),
    *("error_rise", "webhook_seconds", "throughput"),
)
_LETTERS, _COURSE = "dead letters", "course"


def health(known: dict[str, Reading | RunbookError]) -> models.Health:
    """The health of the board and of each environment."""
    environments = [
        models.EnvironmentHealth(
            name=name,
            database="up" if isinstance(now, Reading) else "down",
            reason="" if isinstance(now, Reading) else str(now),
            unread=sorted(now.down) if isinstance(now, Reading) else [],
        )
        for name, now in known.items()
    ]
    is_up = all(each.database == "up" for each in environments)
    return models.Health(status="ok" if is_up else "failing", environments=environments)


def queue(now: Reading, letters: QueueView | RunbookError) -> models.Queue:
    """The queue. Raises Away where its counts could not be read."""
    if now.queue is None:
        raise Away(now.down[Source.QUEUE])
    unread = _unread(now, Source.QUEUE, Source.CHECKS)
    if isinstance(letters, RunbookError):
        unread[_LETTERS] = str(letters)
    read = letters if isinstance(letters, QueueView) else None
    return models.Queue(
        environment=now.environment,
        at=now.at,
        status={str(status): events for status, events in now.queue.status.items()},
        percent={str(status): share for status, share in shares(now.queue.status).items()},
        by_type=[models.TypeCount.model_validate(row) for row in now.queue.by_type],
        open=_whole(_value(now.checks, "queue_depth")),
        oldest_due_seconds=_value(now.checks, "oldest"),
        limits=[models.Limit.model_validate(each) for each in now.queue.limits],
        checks=_checks(now.checks),
        dead_letters=[models.ErrorGroup.model_validate(each) for each in read.dead_letters] if read else None,
        dead_letters_are_cut=read.failed_is_cut if read else False,
        recent_errors=[models.FailedEvent.model_validate(each) for each in read.recent_errors]
        if read
        else None,
        unread=unread,
    )


def success_rate(now: Reading, course: dict[str, Any] | RunbookError) -> models.SuccessRate:
    """Whether events succeed."""
    unread = _unread(now, Source.CHECKS)
    if isinstance(course, RunbookError):
        unread[_COURSE] = str(course)
        course = {}
    all_types = course.get("all_processing")
    return models.SuccessRate(
        environment=now.environment,
        at=now.at,
        checks=[check for check in _checks(now.checks) if check.name in _SUCCESS],
        since=course.get("since"),
        types=[
            models.TypeSuccess(**row, percent=_percent(row["completed"], row["failed"]))
            for row in course.get("types", ())
        ],
        times=[
            models.TypeTimes(**row)
            for row in (*course.get("processing", ()), *([all_types] if all_types else []))
        ],
        course=[models.Point(**point) for point in course.get("course", ())],
        unread=unread,
    )


def releases(now: Reading) -> models.Releases:
    """The releases. Raises Away where they could not be read."""
    if now.release is None:
        raise Away(now.down[Source.RELEASE])
    view = now.release.view
    return models.Releases(
        environment=now.environment,
        at=now.at,
        current=detail(view) if view.release is not None else None,
        history=[summary(run) for run in now.release.history],
    )


def detail(view: StatusView) -> release_models.ReleaseDetail:
    """One release as the status view has it."""
    return release_models.ReleaseDetail.model_validate(
        {**view.__dict__, "findings": view.findings or {}, "around": list(view.around)}
    )


def summary(run: Release) -> release_models.ReleaseSummary:
    """One line of the history."""
    return release_models.ReleaseSummary.model_validate(run)


def alerts(name: str, found: Sequence[Alert]) -> models.Alerts:
    """The alerts."""
    return models.Alerts(environment=name, alerts=[models.Alert.model_validate(each) for each in found])


def _checks(found: Sequence[Measurement] | None) -> list[models.Check]:
    return [models.Check.model_validate(each) for each in found or ()]


def _value(found: Sequence[Measurement] | None, name: str) -> float | None:
    return next((check.value for check in found or () if check.name == name), None)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _percent(completed: int, failed: int) -> float | None:
    ended = completed + failed
    return 100 * completed / ended if ended else None


def _unread(now: Reading, *sources: Source) -> dict[str, str]:
    return {str(source): now.down[source] for source in sources if source in now.down}
