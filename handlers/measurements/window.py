"""The checks of the queue: success, failing events, dead letters, time for each event, events a minute, what waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Clock
from handlers.database.queries import queries
from handlers.environment.bars import Bars
from handlers.gate.day_before import DayBefore, wilson_lower, wilson_upper
from handlers.measurements.measurement import Measurement, State, compared, no_data
from handlers.queue.event import SYNTHETIC_KEY
from handlers.release.ledger import heals

_SQL = queries(__name__)
CHECKS = (
    "success_1h",
    "success_24h",
    "failing_1h",
    "failing_24h",
    "dead_letters_1h",
    "dead_letters_24h",
    "error_rise",
    "webhook_seconds",
    "throughput",
    "queue_depth",
    "oldest",
)
HOUR, DAY, MINUTES = 3600.0, 86_400.0, 300.0
"""The windows: the source's runbook looks at an hour and a day, and a rate is counted over five minutes."""
ROWS_MAX = 100_000
"""So many events of a window are read, the newest ones: a look costs the same, however busy the queue is."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """From when on the events of a look count."""

    at: datetime
    """The database's time of the look."""
    since: datetime
    """The beginning of the day, or of what is asked about if that is later."""
    hour: datetime
    """The beginning of the hour; never before *since*."""
    minutes: datetime

    @classmethod
    def of(cls, clock: Clock, at: datetime, since: datetime | None = None) -> Window:
        """The windows that end at *at*. What lies before *since* does not count: it was another revision's."""
        day, hour, minutes = (at - clock.real(seconds) for seconds in (DAY, HOUR, MINUTES))
        first = day if since is None else max(day, min(since, at))
        return cls(at=at, since=first, hour=max(hour, first), minutes=max(minutes, first))


async def limit_time(tx: AsyncConnection, seconds: float) -> None:
    """Let no query of this transaction run longer than *seconds*."""
    await tx.execute(_SQL["limit_time"], {"milliseconds": str(max(1, int(1000 * seconds)))})


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How many events completed and failed in a window."""

    completed: int
    failed: int
    dead: int = 0
    retries: int = 0

    @property
    def all(self) -> int:
        """Events that ended."""
        return self.completed + self.failed

    @property
    def failing_share(self) -> float:
        """The share of those that ended which failed."""
        return self.failed / self.all if self.all else 0.0


async def read(
    tx: AsyncConnection, bars: Bars, window: Window, before: DayBefore | None
) -> list[Measurement]:
    """The checks of a window. *before* is the day before the release; None: the same span before is read."""
    healed = await heals.replays(tx, window.since)
    values = {
        "since": window.since,
        "healed": list(healed),
        "hour": window.hour,
        "minutes": window.minutes,
        "synthetic": SYNTHETIC_KEY,
        "rows_max": ROWS_MAX,
    }
    row = (await tx.execute(_SQL["window"], values)).one()
    open_ = (
        await tx.execute(
            _SQL["waiting"],
            {"synthetic": SYNTHETIC_KEY, "healed": list(healed), "healed_at": list(healed.values())},
        )
    ).one()
    hour = Ended(completed=row.completed_1h, failed=row.failed_1h, dead=row.dead_1h, retries=row.retries_1h)
    day = Ended(completed=row.completed, failed=row.failed, dead=row.dead, retries=row.retries)
    if before is None:
        span = {"since": window.since - (window.at - window.since), "until": window.since}
        then = (await tx.execute(_SQL["before"], values | span)).one()
        former = Ended(completed=then.completed, failed=then.failed)
    else:
        good = round(before.units * before.ok)
        former = Ended(completed=good, failed=before.units - good)
    newest = f" (the newest {ROWS_MAX:,})" if row.is_cut else ""
    return [
        *_shares(bars, hour, "1h", f"since {_clock(window.hour)}{newest}"),
        *_shares(bars, day, "24h", f"since {_clock(window.since)}{newest}"),
        _rise(bars, day, former),
        _seconds(bars, row, window),
        _throughput(bars, row.lately, window, open_.oldest),
        _depth(bars, open_),
        _oldest(bars, window, open_.oldest),
    ]


def _shares(bars: Bars, ended: Ended, span: str, when: str) -> Iterator[Measurement]:
    success, failing = f"success_{span}", f"failing_{span}"
    taken = ended.all + ended.retries
    if taken < bars.events_min:
        few = f"{taken} events ended or failed {when}: fewer than {bars.events_min} tell nothing"
        yield no_data(success, few, bar=bars.success_percent, unit="%")
        yield no_data(failing, few, bar=bars.failing_percent, unit="%")
    else:
        percent = 100 * ended.completed / ended.all if ended.all else 0.0
        sentence = f"{ended.completed:,} of {ended.all:,} that ended {when} completed, {percent:.1f} %"
        yield compared(success, percent, bars.success_percent, "%", sentence, good_above=True)
        bad = ended.failed + ended.retries
        percent = 100 * bad / taken
        sentence = f"{ended.failed:,} failed and {ended.retries:,} retry of {taken:,} {when}, {percent:.1f} %"
        yield compared(failing, percent, bars.failing_percent, "%", sentence)
    sentence = f"{ended.dead:,} events became dead letters {when}"
    yield compared(f"dead_letters_{span}", ended.dead, bars.dead_letters, "", sentence)


def _rise(bars: Bars, now: Ended, before: Ended) -> Measurement:
    """The rise of the error rate. A rise that chance explains breaks no bar."""
    if now.all < bars.events_min or before.all < bars.events_min:
        few = f"fewer than {bars.events_min} tell nothing"
        sentence = f"{now.all:,} events ended now and {before.all:,} before: {few}"
        return no_data("error_rise", sentence, bar=bars.error_rise_points, unit="points")
    points = 100 * (now.failing_share - before.failing_share)
    shares = f"{100 * now.failing_share:.1f} % fail now, {100 * before.failing_share:.1f} % before"
    sentence = f"{shares}: {points:+.1f} points"
    found = compared("error_rise", points, bars.error_rise_points, "points", sentence)
    by_chance = wilson_lower(now.failing_share, now.all) <= wilson_upper(before.failing_share, before.all)
    if found.state is State.BROKEN and by_chance:
        return replace(found, state=State.SHOWN, sentence=f"{sentence}; that may be chance")
    return found


def _seconds(bars: Bars, row: Row[Any], window: Window) -> Measurement:
    if row.p95 is None:
        sentence = f"no event completed since {_clock(window.hour)}"
        return no_data("webhook_seconds", sentence, bar=bars.webhook_seconds, unit="s")
    sentence = f"95 % took at most {row.p95:.2f} s from claim to completion, the slowest {row.slowest:.1f} s"
    return compared("webhook_seconds", row.p95, bars.webhook_seconds, "s", sentence)


def _throughput(bars: Bars, ended: int, window: Window, oldest: datetime | None) -> Measurement:
    span = max((window.at - window.minutes).total_seconds(), 1.0)
    rate = 60 * ended / span
    sentence = f"{rate:,.0f} events a minute ended in the last {span:.0f} s"
    # A window that began with the deploy is too short to tell.
    if oldest is not None and oldest <= window.minutes and window.minutes > window.since:
        return compared(
            "throughput",
            rate,
            bars.events_a_minute,
            "a minute",
            f"{sentence} while others wait",
            good_above=True,
        )
    # Nobody was ever out of work: a low rate only says that little came in.
    return Measurement(
        name="throughput",
        value=rate,
        unit="a minute",
        bar=bars.events_a_minute,
        state=State.SHOWN,
        sentence=f"{sentence}, and nothing waits so long",
    )


def _depth(bars: Bars, open_: Row[Any]) -> Measurement:
    sentence = (
        f"{open_.open:,} events are open: {open_.pending:,} pending, {open_.processing:,} in processing, "
        f"{open_.retry:,} in retry"
    )
    return compared("queue_depth", open_.open, bars.queue_depth, "", sentence)


def _oldest(bars: Bars, window: Window, oldest: datetime | None) -> Measurement:
    seconds = max((window.at - oldest) / timedelta(seconds=1), 0.0) if oldest is not None else 0.0
    sentence = f"the oldest due event waits {seconds:,.0f} s" if oldest is not None else "no event is due"
    return compared("oldest", seconds, bars.oldest_seconds, "s", sentence)


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%d %b %H:%M} UTC"
