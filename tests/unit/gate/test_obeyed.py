"""Whether workers honour the limits of the breaker, by what they admitted."""

from __future__ import annotations

import pytest

from handlers.gate.obeyed import ignored

QUOTA = {"Invoice": 3}


@pytest.mark.parametrize(
    ("admitted", "quotas", "elapsed"),
    [
        ({}, QUOTA, 10),
        ({"Invoice": 3}, QUOTA, 10),
        ({"Invoice": 6}, QUOTA, 10),  # three at the end of a window, three at the begin of the next
        ({"Invoice": 9}, QUOTA, 20.5),
        ({"Invoice": 5}, {"Invoice": 0}, 10),  # claimed just before the limit was committed
        ({"Product": 500}, QUOTA, 10),  # another type is free
        ({"Product": 500}, {}, 10),
        ({"Invoice": 3}, QUOTA, 0),
        ({"Invoice": 3}, QUOTA, -1),
        ({"Invoice": 60}, QUOTA, 200),
    ],
)
def test_workers_that_keep_the_quota_are_never_accused(
    admitted: dict[str, int], quotas: dict[str, int], elapsed: float
) -> None:
    """Not at the edge of a window, not for what was claimed before the limit, not for types that nobody limits."""
    assert ignored(admitted, quotas, elapsed) == ""


@pytest.mark.parametrize(
    ("admitted", "quotas", "elapsed"),
    [
        ({"Invoice": 30}, QUOTA, 10),
        ({"Invoice": 60}, QUOTA, 60),  # one in a second: seen within a minute
        ({"Invoice": 6}, {"Invoice": 0}, 10),
        ({"Invoice": 10, "Product": 20}, {"*": 3}, 10),  # none of the types alone is too much
    ],
)
def test_workers_that_take_what_they_like_are_noticed(
    admitted: dict[str, int], quotas: dict[str, int], elapsed: float
) -> None:
    """The sentence has what was taken and what was allowed."""
    told = ignored(admitted, quotas, elapsed)
    assert "do not honour" in told
    assert str(sum(admitted.values())) in told
    assert len(told.split()) <= 25


def test_a_rehearsal_is_judged_by_its_own_tick() -> None:
    """Where a window is a sixth of a second, sixty times as many are allowed."""
    assert ignored({"*": 0, "Invoice": 150}, QUOTA, 10, tick_s=1 / 6) == ""
    assert ignored({"Invoice": 500}, QUOTA, 10, tick_s=1 / 6)
