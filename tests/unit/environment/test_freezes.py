"""When a freeze is active: once or weekly, over midnight, and over a change of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from handlers.environment.freezes import Action, Day, Freeze, active, coming, free_from, when
from handlers.environment.load import parse
from handlers.errors import ConfigError
from tests.unit.environment.files import values

BAGHDAD = "Asia/Baghdad"
BERLIN = "Europe/Berlin"


def freeze(**keys: Any) -> Freeze:
    """A freeze of Fridays at 16:00 until Monday at 08:00, with keys replaced."""
    weekend = {"reason": "the weekend", "days": ["fri"], "begins": "16:00", "ends": "mon 08:00"}
    return Freeze.model_validate({**weekend, "time_zone": BAGHDAD, **keys})


def once(begins: str, ends: str, time_zone: str = BAGHDAD) -> Freeze:
    """A freeze that is once."""
    return Freeze.model_validate(
        {"reason": "x", "begins": begins, "ends": ends, "time_zone": time_zone}
    )  # fmt: skip


def here(text: str, time_zone: str = BAGHDAD) -> datetime:
    """A moment by the clock of this zone."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(time_zone)).astimezone(UTC)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2025-11-14 15:59", None),
        ("2025-11-14 16:00", "2025-11-17 08:00"),
        ("2025-11-15 00:00", "2025-11-17 08:00"),
        ("2025-11-17 07:59", "2025-11-17 08:00"),
        ("2025-11-17 08:00", None),
        ("2025-11-19 12:00", None),
    ],
)
def test_a_weekend_is_frozen_from_its_first_to_its_last_minute(now: str, until: str | None) -> None:
    """The first minute counts, the last one does not; 2025-11-14 is a Friday."""
    window = freeze().at(here(now))
    assert (window and window.end) == (until and here(until))


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2025-11-13 21:59", None),
        ("2025-11-13 22:00", "2025-11-14 06:00"),
        ("2025-11-14 05:59", "2025-11-14 06:00"),
        ("2025-11-14 06:00", None),
        # Not a Wednesday night: it began on no day of the list.
        ("2025-11-13 03:00", None),
    ],
)
def test_a_night_belongs_to_the_day_on_which_it_begins(now: str, until: str | None) -> None:
    """A time that is not after the begin is one of the next day."""
    window = freeze(days=["thu"], begins="22:00", ends="06:00").at(here(now))
    assert (window and window.end) == (until and here(until))


def test_a_whole_day_ends_at_midnight() -> None:
    """The same time twice is 24 hours, and the same day by name a whole week."""
    day = freeze(days=["sat"], begins="00:00", ends="00:00")
    assert day.at(here("2025-11-15 23:59")) is not None
    assert day.at(here("2025-11-16 00:00")) is None
    week = freeze(days=["sat"], begins="12:00", ends="sat 12:00").at(here("2025-11-20 12:00"))
    assert week is not None
    assert week.end - week.begin == timedelta(days=7)


def test_the_clock_is_that_of_the_zone_and_not_ours() -> None:
    """16:00 in Baghdad is 13:00 UTC, and already Friday there when it is Thursday elsewhere."""
    assert freeze().at(datetime(2025, 11, 14, 12, 59, tzinfo=UTC)) is None
    assert freeze().at(datetime(2025, 11, 14, 13, 0, tzinfo=UTC)) is not None
    early = freeze(begins="00:00", ends="01:00")
    assert early.at(datetime(2025, 11, 13, 21, 30, tzinfo=UTC)) is not None


def test_in_spring_a_freeze_keeps_its_times_on_the_wall() -> None:
    """The night of 2026-03-29 has 23 hours in Berlin: it still ends at 08:00 there."""
    window = freeze(time_zone=BERLIN).at(here("2026-03-28 12:00", BERLIN))
    assert window is not None
    assert window.end == datetime(2026, 3, 30, 6, 0, tzinfo=UTC)
    assert window.end - window.begin == timedelta(hours=63)


def test_in_autumn_a_freeze_is_an_hour_longer() -> None:
    """The night of 2025-10-26 has 25 hours in Berlin."""
    window = freeze(time_zone=BERLIN).at(here("2025-10-25 12:00", BERLIN))
    assert window is not None
    assert window.end - window.begin == timedelta(hours=65)


@pytest.mark.parametrize(
    ("begins", "ends", "utc"),
    [
        # 02:30 comes never on 2026-03-29: it begins by the earlier reading, and ends by the later one.
        ("2026-03-29 02:30", "2026-03-29 12:00", ("00:30", "10:00")),
        ("2026-03-28 12:00", "2026-03-29 02:30", ("11:00", "01:30")),
        # 02:30 comes twice on 2025-10-26: it begins at the first and ends at the second.
        ("2025-10-26 02:30", "2025-10-26 12:00", ("00:30", "11:00")),
        ("2025-10-25 12:00", "2025-10-26 02:30", ("10:00", "01:30")),
    ],
)
def test_a_time_that_comes_twice_or_never_makes_it_longer(
    begins: str, ends: str, utc: tuple[str, str]
) -> None:
    """In doubt nothing starts."""
    window = once(begins, ends, BERLIN).at(
        here("2026-03-29 01:00" if "2026" in begins else "2025-10-26 02:45", BERLIN)
    )
    found = window or once(begins, ends, BERLIN).next_after(datetime(2025, 1, 1, tzinfo=UTC))
    assert found is not None
    assert (f"{found.begin:%H:%M}", f"{found.end:%H:%M}") == utc


@given(
    days=st.lists(st.sampled_from(Day), min_size=1, unique=True),
    begins=st.times(),
    ends=st.times(),
    zone=st.sampled_from([BAGHDAD, BERLIN, "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "UTC"]),
    now=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
)
def test_what_is_open_is_open_from_its_begin_to_its_end(
    days: list[Day], begins: Any, ends: Any, zone: str, now: datetime
) -> None:
    """Of any freeze at any time: the window contains now, and nothing is active right at its end but another one."""
    weekly = freeze(days=days, begins=f"{begins:%H:%M}", ends=f"{ends:%H:%M}", time_zone=zone)
    window = weekly.at(now)
    if window is not None:
        assert window.begin <= now < window.end
        assert window.end - window.begin <= timedelta(hours=26)
        again = weekly.at(window.end)
        assert again is None or again.begin <= window.end < again.end
    following = weekly.next_after(now)
    assert following is not None
    assert now < following.begin <= now + timedelta(days=8)
    assert weekly.at(following.begin) is not None


def test_one_freeze_may_follow_another() -> None:
    """Free is when none is active; each is still told with its own end."""
    known = [freeze(), once("2025-11-17 07:00", "2025-11-18 10:00")]
    now = here("2025-11-15 12:00")
    assert [each.until for each in active(known, Action.RELEASE, now)] == [here("2025-11-17 08:00")]
    assert free_from(known, Action.RELEASE, now) == here("2025-11-18 10:00")


def test_without_an_end_there_is_none_to_tell() -> None:
    """Every day, all day: nobody is sent to wait for it."""
    always = freeze(days=list(Day), begins="00:00", ends="00:00")
    assert free_from([always], Action.RELEASE, here("2025-11-15 12:00")) is None


def test_only_what_it_names_is_kept() -> None:
    """A freeze of releases does not keep a drain."""
    known = [freeze()]
    now = here("2025-11-15 12:00")
    assert active(known, Action.RELEASE, now)
    assert not active(known, Action.DRAIN, now)
    assert coming(known, Action.DRAIN, now) is None
    assert active([freeze(actions=["drain", "canary"])], Action.DRAIN, now)


def test_there_is_no_freeze_of_the_way_back() -> None:
    """A rollback, a hold, an abort and a resume cannot be named."""
    for name in ("rollback", "hold", "abort", "resume"):
        with pytest.raises(ValidationError):
            freeze(actions=[name])


def test_the_sentence_has_the_end_by_the_clock_of_its_people() -> None:
    """With the day, so that nobody counts."""
    [found] = active([freeze()], Action.RELEASE, here("2025-11-15 12:00"))
    assert found.sentence == "a freeze is active until Mon 2025-11-17 08:00 Asia/Baghdad: the weekend"
    assert when(datetime(2025, 7, 1, 12, tzinfo=UTC), BERLIN) == "Tue 2025-07-01 14:00 Europe/Berlin"


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"begins": "4 pm"}, "begins must be a time such as 16:00"),
        ({"begins": "24:00"}, "begins must be a time"),
        ({"ends": "monday 08:00"}, "ends must be a time such as 08:00 or mon 08:00"),
        ({"days": ["fri", "sat"]}, "ends names a day, so there can be only one day"),
        ({"days": []}, "must be dates such as 2025-12-20 18:00, or add days"),
        ({"days": [], "begins": "2025-12-20 18:00", "ends": "2025-12-20 17:00"}, "before it begins"),
        ({"days": [], "begins": "2025-02-30 18:00", "ends": "2025-12-20 17:00"}, "there is no such date"),
        ({"days": ["friday"]}, "mon"),
        ({"time_zone": "Baghdad"}, "there is no time zone 'Baghdad'"),
        ({"time_zone": "../etc/passwd"}, "there is no time zone"),
        ({"actions": []}, "at least 1"),
        ({"reason": ""}, "at least 1"),
        ({"override_people": ["ops-a", "Ops-A"]}, "named twice"),
    ],
)
def test_a_wrong_freeze_is_named(keys: dict[str, Any], fault: str) -> None:
    """At the read of the file, and not on the Friday."""
    with pytest.raises(ValidationError, match=fault):
        freeze(**keys)


def test_a_time_of_toml_is_a_time(tmp_path: Any) -> None:
    """With quotes or without; an offset would contradict the zone."""
    import tomllib

    text = 'reason = "x"\nbegins = 2025-12-20T18:00:00\nends = 2025-12-21T08:00:00\n'
    assert Freeze.model_validate(tomllib.loads(text)).begins == "2025-12-20 18:00"
    weekly = tomllib.loads('reason = "x"\ndays = ["fri"]\nbegins = 16:00:00\nends = 18:00:00\n')
    assert Freeze.model_validate(weekly).ends == "18:00"
    with pytest.raises(ValidationError, match="leave the offset out"):
        Freeze.model_validate(tomllib.loads(text.replace("18:00:00", "18:00:00Z")))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"approval": {"roles": ["leads"]}}, "approval.roles: there is no role 'leads'"),
        ({"freeze": [{"reason": "x", "days": ["fri"], "begins": "16:00", "ends": "18:00", "override_roles": ["x"]}]},
         "freeze.0.override_roles: there is no role 'x'"),
        ({"roles": [{"name": "a", "people": ["x"]}, {"name": "a", "people": ["y"]}]}, "two have the name 'a'"),
        ({"approval": {"needed": 2, "people": ["ops-a"]}}, "approval.needed is 2, but only 1 people may approve"),
        ({"approval": {"needed": -1}}, "approval.needed"),
        ({"approval": {"people": [" "]}}, "no name of a person"),
        ({"approval": {"needs": 1}}, "unknown key approval.needs; did you mean needed"),
        ({"migrations": {"paths": ["/etc/*"]}}, "no pattern of files"),
        ({"migrations": {"paths": [":(top)x"]}}, "no pattern of files"),
    ],
)  # fmt: skip
def test_what_the_file_does_not_agree_on_is_named(changes: dict[str, Any], fault: str) -> None:
    """A role that nobody has, or more approvals than people: no release could ever start."""
    with pytest.raises(ConfigError, match=fault):
        parse({**values(), **changes}, source="test")
