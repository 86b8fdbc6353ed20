"""The window of a watch: measured by a clock that nobody can set, and checked against the database's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handlers.database.clock import Moment
from handlers.gate.values import Finding
from handlers.phases.watch import Window, duration

BEGAN = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)


def at(process: float, database: float) -> Moment:
    """A moment, in seconds since the begin by each clock."""
    return Moment(monotonic=1000 + process, database=BEGAN + timedelta(seconds=database))


def window(**values: object) -> Window:
    """A watch of half an hour that has just begun."""
    begun: dict[str, object] = {
        "since": BEGAN - timedelta(seconds=90),
        "seconds": 1800.0,
        "interval_seconds": 60.0,
        "watched_seconds": 0.0,
        "moment": at(0, 0),
    }
    return Window(**(begun | values))  # type: ignore[arg-type]


def watched(*moments: Moment, speed: float = 1.0) -> Window:
    """The window after looks at these moments."""
    seen = window()
    for moment in moments:
        seen = seen.continued(moment, speed)
    return seen


@pytest.mark.parametrize("jump", [2400.0, 3 * 3600.0, -1620.0, -3 * 3600.0])
def test_a_jump_of_the_databases_clock_does_not_shorten_the_watch(jump: float) -> None:
    """Only the interval in which it jumps is measured by the other clock, or is watched once more."""
    seen = watched(at(60, 60), at(120, 120 + jump), at(180, 180 + jump))
    assert 120 <= seen.watched_seconds <= 180
    assert seen.remaining_seconds >= 1800 - 180


@pytest.mark.parametrize("jump", [2400.0, -3 * 3600.0])
def test_a_jump_of_the_process_clock_does_not_shorten_the_watch(jump: float) -> None:
    """A clock that should never jump (a debugger, a faked time) is checked as well."""
    seen = watched(at(60, 60), at(120 + jump, 120), at(180 + jump, 180))
    assert 120 <= seen.watched_seconds <= 180


def test_a_rehearsal_watches_faster() -> None:
    """Sixty runbook seconds in each real one."""
    assert watched(at(1, 1), speed=60).watched_seconds == 60


def test_the_progress_of_an_earlier_controller_counts() -> None:
    """Its time is in the ledger; the time in which nobody watched is not."""
    assert window(watched_seconds=1700.0).continued(at(60, 60), 1).watched_seconds == 1760


def test_what_a_person_holds_is_no_part_of_the_watch() -> None:
    """Nothing was watched while nothing came through."""
    held = window(watched_seconds=600.0).continued(at(60, 60), 1, counts=False)
    assert held.watched_seconds == 600
    assert held.continued(at(120, 120), 1).watched_seconds == 660


def test_an_undecided_watch_goes_on_for_a_third_of_its_time() -> None:
    """Where live events come. Without one, or with a finding, it ends when its time is over."""
    over = {"watched_seconds": 1801.0}
    assert not window(finding=Finding.INCONCLUSIVE, **over).is_over
    assert window(finding=Finding.INCONCLUSIVE, watched_seconds=2401.0).is_over
    assert all(window(finding=finding, **over).is_over for finding in (Finding.NO_DATA, Finding.HEALTHY))
    assert not window(finding=Finding.HEALTHY, watched_seconds=1799.0).is_over


def test_an_undecided_short_watch_goes_on_until_what_hangs_must_show() -> None:
    """Twice the age of a stuck event: what was taken last shows in the first, and a proof in the second."""
    short = {"finding": Finding.INCONCLUSIVE, "seconds": 90.0, "stuck_seconds": 180.0}
    assert not window(watched_seconds=449.0, **short).is_over
    assert window(watched_seconds=450.0, **short).is_over


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.2, "3 s"), (119, "119 s"), (1800.4, "30 min"), (1893, "31.6 min"), (86400, "1440 min")],
)
def test_a_duration_is_what_was_measured(seconds: float, words: str) -> None:
    """Not what the configuration asks for."""
    assert duration(seconds) == words
