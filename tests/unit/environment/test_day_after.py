"""The times of a guard's checks, and schedules that nobody can mean."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from handlers.environment.day_after import CHECKS_MAX, Guard


def test_the_default_is_the_runbooks_day() -> None:
    """Every 5 min in the first hour, 15 min to hour 4, hourly to hour 24."""
    due = Guard().due_after()
    assert len(due) == 12 + 12 + 20
    assert (due[0], due[11], due[12], due[23], due[24], due[-1]) == (300, 3600, 4500, 14_400, 18_000, 86_400)
    assert list(due) == sorted(set(due))


def test_the_last_check_is_at_the_very_end() -> None:
    """Also where the pause does not fit."""
    assert Guard(every_seconds=(40,), until_seconds=(100,)).due_after() == (40, 80, 100)
    assert Guard(every_seconds=(500,), until_seconds=(100,)).due_after() == (100,)
    assert Guard(every_seconds=(30, 50), until_seconds=(70, 200)).due_after() == (30, 60, 110, 160, 200)


@pytest.mark.parametrize(
    ("every", "until", "why"),
    [
        ((300, 900), (3600,), "each stretch of time needs both"),
        ((300, 900), (3600, 3600), "until_seconds must grow"),
        ((300, 900), (7200, 3600), "until_seconds must grow"),
        ((1,), (86_400,), f"more than {CHECKS_MAX} checks"),
        ((), (), "at least 1 item"),
        ((0,), (10,), "greater than 0"),
        ((-5,), (10,), "greater than 0"),
        ((300,), (10_000_000,), "less than or equal"),
        (("soon",), (10,), "valid number"),
        ((float("nan"),), (10,), "less than or equal"),
        ((300,), (float("inf"),), "less than or equal"),
    ],
)
def test_a_schedule_that_nobody_can_mean_is_refused(
    every: tuple[float, ...], until: tuple[float, ...], why: str
) -> None:
    """With what is wrong in one sentence."""
    with pytest.raises(ValidationError, match=why):
        Guard(every_seconds=every, until_seconds=until)
