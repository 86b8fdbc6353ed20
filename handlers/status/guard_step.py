"""The guard as a step of the status view: what comes next, what was found, and that nobody takes its checks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.environment.day_after import Guard as Settings
from handlers.environment.load import env_option
from handlers.release.ledger import guards
from handlers.release.ledger.guards import Check, Guard, Kind
from handlers.release.phase import LIVE, Phase, Release
from handlers.status.view import StepState, StepView

NAME = "guard"
OVERDUE = timedelta(minutes=3)
"""A check that is due for so long is not taken by anybody: the schedule comes each minute. Real time."""


async def guard_steps(tx: AsyncConnection, release: Release, at: datetime) -> tuple[StepView, ...]:
    """The guard of a release, or the one that it will have; empty where it has none."""
    guard = await guards.get(tx, release.id)
    if guard is not None:
        return (_step(guard, await guards.checks(tx, release.id), release, at),)
    will_be = release.phase in LIVE - {Phase.ROLLING_BACK} and release.from_revision != release.to_revision
    settings = await guards.settings_of(tx, release) if will_be else None
    if settings is None or not settings.active:
        return ()
    return (StepView(name=NAME, state=StepState.LATER, at=None, sentence=_planned(settings)),)


def uncarried(guard: Guard, checks: Sequence[Check], at: datetime) -> str:
    """That nobody takes the checks which are due; empty while somebody does. Pure."""
    overdue = [check for check in checks if check.taken_at is None and check.due_at <= at]
    if guard.ended_at is not None or guard.is_claimed or not overdue or at - overdue[0].due_at < OVERDUE:
        return ""
    return f"nobody takes the checks: {len(overdue)} overdue since {_time(overdue[0].due_at)}"


def _step(guard: Guard, checks: Sequence[Check], release: Release, at: datetime) -> StepView:
    if guard.ended_at is not None:
        return StepView(name=NAME, state=StepState.DONE, at=guard.ended_at, sentence=guard.ended)
    looks = [check for check in checks if check.kind is Kind.LOOK]
    taken = [check for check in looks if check.taken_at is not None and not check.skipped]
    found = f"; {len(taken)} of {len(looks)} taken, the last {taken[-1].finding}" if taken else ""
    only = f"; a breach only pages ({guard.pages_only_by})" if guard.pages_only_by else ""
    if sentence := uncarried(guard, checks, at):
        command = f"; `runbook guard --due {env_option(guard.environment)}` takes them, each minute"
        return StepView(
            name=NAME, state=StepState.FAILED, at=guard.begun_at, sentence=f"{sentence}{command}{found}{only}"
        )
    due = next((check.due_at for check in checks if check.taken_at is None), guard.until)
    schedule = _schedule([guard.begun_at, *(check.due_at for check in looks)], release.speed)
    return StepView(name=NAME, state=StepState.NEXT, at=due, sentence=f"{schedule}{found}{only}")


def _schedule(times: Sequence[datetime], speed: float) -> str:
    """`every 5 min to 15:41, 15 min to 18:41, 1 h to 14:41`."""
    stretches: list[tuple[int, datetime]] = []
    for before, after in pairwise(times):
        pause = round((after - before).total_seconds() * speed)
        if stretches and stretches[-1][0] == pause:
            stretches.pop()
        stretches.append((pause, after))
    return "every " + ", ".join(f"{_pause(pause)} to {_time(until)}" for pause, until in stretches)


def _planned(settings: Settings) -> str:
    stretches = zip(settings.every_seconds, settings.until_seconds, strict=True)
    words = ", ".join(f"{_pause(every)} to {_pause(until)}" for every, until in stretches)
    return f"after its end, every {words}"


def _pause(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%H:%M}"
