"""The keys of an environment file about freezes: the times in which nothing new may start. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from handlers.environment.notification import is_a_zone
from handlers.environment.people import People, RoleName
from handlers.environment.section import Section

_DATE = re.compile(r"\d{4}-\d\d-\d\d[ T]([01]\d|2[0-3]):[0-5]\d")
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_CHAIN_MAX = 400
"""So many windows that follow one another are joined. More nobody means: each day of a year."""


class Action(StrEnum):
    """What a freeze keeps from starting. A rollback, a hold, an abort and what runs already are never kept."""

    RELEASE = "release"
    CANARY = "canary"
    DRAIN = "drain"
    WATCH = "watch"


class Day(StrEnum):
    """A day of the week."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


_DAYS = tuple(Day)


def _as_text(value: Any) -> Any:
    """A time of TOML as text; with an offset it would contradict the time zone."""
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            raise ValueError("leave the offset out: time_zone says which clock is meant")
        return f"{value:%Y-%m-%d %H:%M}"
    return f"{value:%H:%M}" if isinstance(value, time) else value


TimeText = Annotated[str, BeforeValidator(_as_text)]


@dataclass(frozen=True, kw_only=True)
class Window:
    """One stretch of time in which a freeze is active."""

    begin: datetime
    end: datetime


class Freeze(Section):
    """A time in which nothing new may start: once, or every week."""

    reason: Annotated[str, Field(min_length=1, max_length=200)]
    """Why, for whoever is refused."""
    days: tuple[Day, ...] = ()
    """The days on which it begins, every week; empty for a freeze that is once."""
    begins: TimeText
    """With days a time such as 16:00, otherwise a date and a time such as 2025-12-20 18:00."""
    ends: TimeText
    """The same. A time that is not after *begins* is one of the next day; with one day also `mon 08:00`."""
    time_zone: Annotated[str, AfterValidator(is_a_zone)] = "UTC"
    """The clock that is meant, such as Asia/Baghdad; also over a change to summer time."""
    actions: Annotated[tuple[Action, ...], Field(min_length=1)] = (Action.RELEASE,)
    """What may not start."""
    override_people: People = ()
    """Who may start it all the same, with a reason."""
    override_roles: tuple[RoleName, ...] = ()
    """The roles whose people may do so as well."""

    @model_validator(mode="after")
    def _is_a_time(self) -> Self:
        if not self.days:
            if not (_DATE.fullmatch(self.begins) and _DATE.fullmatch(self.ends)):
                raise ValueError("begins and ends must be dates such as 2025-12-20 18:00, or add days")
            try:
                begin, end = datetime.fromisoformat(self.begins), datetime.fromisoformat(self.ends)
            except ValueError as error:
                raise ValueError(f"there is no such date: {error}") from None
            if end <= begin:
                raise ValueError(f"it ends ({self.ends}) before it begins ({self.begins})")
            return self
        if not _CLOCK.fullmatch(self.begins):
            raise ValueError(
                f"begins must be a time such as 16:00, because days are given, not {self.begins!r}"
            )
        day, _, clock = self.ends.rpartition(" ")
        if not _CLOCK.fullmatch(clock) or (day and day not in list(_DAYS)):
            raise ValueError(f"ends must be a time such as 08:00 or mon 08:00, not {self.ends!r}")
        if day and len(self.days) > 1:
            raise ValueError("ends names a day, so there can be only one day on which it begins")
        return self

    def at(self, now: datetime) -> Window | None:
        """The window that is open *now*; of several that overlap the one that ends last."""
        is_open = [window for window in self._around(now) if window.begin <= now < window.end]
        return max(is_open, key=lambda window: window.end, default=None)

    def next_after(self, now: datetime) -> Window | None:
        """The next window that begins after *now*."""
        coming = [window for window in self._around(now) if window.begin > now]
        return min(coming, key=lambda window: window.begin, default=None)

    def _around(self, now: datetime) -> Iterator[Window]:
        """The windows of the week before and the week after; of a freeze that is once, its only one."""
        if not self.days:
            yield self._window(datetime.fromisoformat(self.begins), datetime.fromisoformat(self.ends))
            return
        today = now.astimezone(ZoneInfo(self.time_zone)).date()
        for offset in range(-8, 9):
            day = today + timedelta(days=offset)
            if _DAYS[day.weekday()] in self.days:
                begin = datetime.combine(day, time.fromisoformat(self.begins))
                yield self._window(begin, datetime.combine(self._last_day(day), self._end_time()))

    def _last_day(self, first: date) -> date:
        name, _, _clock = self.ends.rpartition(" ")
        is_later = self._end_time() > time.fromisoformat(self.begins)
        days = (_DAYS.index(Day(name)) - first.weekday()) % 7 if name else 0
        return first + timedelta(days=days or (0 if is_later else 7 if name else 1))

    def _end_time(self) -> time:
        return time.fromisoformat(self.ends.rpartition(" ")[2])

    def _window(self, begin: datetime, end: datetime) -> Window:
        """By the clock on the wall. A time that comes twice, or never, counts so that the freeze is longer."""
        zone = ZoneInfo(self.time_zone)
        begins = (begin.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        ends = (end.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        return Window(begin=min(begins), end=max(ends))


@dataclass(frozen=True, kw_only=True)
class Active:
    """A freeze that is active."""

    freeze: Freeze
    until: datetime

    @property
    def sentence(self) -> str:
        """Why nothing may start, and until when."""
        return f"a freeze is active until {when(self.until, self.freeze.time_zone)}: {self.freeze.reason}"


def active(freezes: Iterable[Freeze], action: Action, now: datetime) -> tuple[Active, ...]:
    """The freezes that keep *action* from starting now, the one that ends first at the front."""
    found = [
        Active(freeze=freeze, until=window.end)
        for freeze in freezes
        if action in freeze.actions and (window := freeze.at(now)) is not None
    ]
    return tuple(sorted(found, key=lambda each: each.until))


def free_from(freezes: Iterable[Freeze], action: Action, now: datetime) -> datetime | None:
    """When *action* may start again: one freeze may follow another. None where that takes longer than can be told."""
    known = tuple(freezes)
    for _ in range(_CHAIN_MAX):
        if not (found := active(known, action, now)):
            return now
        now = found[-1].until
    return None


def coming(freezes: Iterable[Freeze], action: Action, now: datetime) -> Active | None:
    """The next freeze of *action*; its `until` is when it begins."""
    found = [
        Active(freeze=freeze, until=window.begin)
        for freeze in freezes
        if action in freeze.actions and (window := freeze.next_after(now)) is not None
    ]
    return min(found, key=lambda each: each.until, default=None)


def when(at: datetime, time_zone: str) -> str:
    """A time by the clock of its people: `Mon 2025-12-22 08:00 Asia/Baghdad`."""
    return f"{at.astimezone(ZoneInfo(time_zone)):%a %Y-%m-%d %H:%M} {time_zone}"
