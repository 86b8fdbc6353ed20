"""The betting score: what lets it grow, what never does, and that forgiving forgives one window."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.gate.odds import GAINS, GUARD_BLOCKS, likely_onset, odds, onset_weight

COUNTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40)


def by_definition(units: list[int], bad: list[int], q: float, forgive: int) -> float:
    """The formula written down, without any shortcut."""
    total = 0.0
    for gain in GAINS:
        q1 = q + (1 - q) * gain
        steps = [
            b * math.log(q1 / q) + (n - b) * math.log((1 - q1) / (1 - q))
            for n, b in zip(units, bad, strict=True)
        ]
        for onset in range(len(steps)):
            windows = [sum(steps[i : i + forgive]) for i in range(onset, len(steps))] if forgive else []
            stake = sum(steps[onset:]) - max([0.0, *windows])
            total += onset_weight(onset) * math.exp(stake)
    return total / len(GAINS)


@given(counts=COUNTS, forgive=st.sampled_from([0, 1, 5]), q=st.sampled_from([0.05, 0.10, 0.28]))
@settings(max_examples=300, deadline=None)
def test_the_odds_are_the_formula(counts: list[tuple[int, int]], forgive: int, q: float) -> None:
    """What is left out of the sum does not change it."""
    units, bad = [good + failed for good, failed in counts], [failed for _, failed in counts]
    assert odds(units, bad, q, forgive=forgive) == pytest.approx(by_definition(units, bad, q, forgive))


@given(counts=COUNTS, block=st.integers(0, 39), forgive=st.sampled_from([0, 5]))
def test_a_good_unit_never_raises_the_odds(counts: list[tuple[int, int]], block: int, forgive: int) -> None:
    """So odds that did not reach the threshold need no second look until something fails."""
    units, bad = [good + failed for good, failed in counts], [failed for _, failed in counts]
    better = list(units)
    better[block % len(units)] += 1
    assert odds(better, bad, 0.05, forgive=forgive) <= odds(units, bad, 0.05, forgive=forgive) * (1 + 1e-9)


@given(counts=COUNTS, block=st.integers(0, 39), forgive=st.sampled_from([0, 5]))
def test_a_failure_instead_of_a_success_never_lowers_the_odds(
    counts: list[tuple[int, int]], block: int, forgive: int
) -> None:
    """More failures never make a release look healthier."""
    units, bad = [good + failed + 1 for good, failed in counts], [failed for _, failed in counts]
    worse = list(bad)
    worse[block % len(units)] += 1
    assert odds(units, worse, 0.05, forgive=forgive) >= odds(units, bad, 0.05, forgive=forgive) * (1 - 1e-9)


@given(first=st.integers(0, 60), length=st.integers(1, 5), failures=st.integers(1, 60))
def test_one_window_of_failures_is_forgiven_whatever_its_place(
    first: int, length: int, failures: int
) -> None:
    """However many fail within five blocks, the odds stay those of a release that has shown nothing."""
    units = [10] * 70
    bad = [0] * 70
    for block in range(first, min(first + length, 70)):
        units[block] = bad[block] = failures
    assert odds(units, bad, 0.05, forgive=5) <= 1.0


def test_two_windows_of_failures_are_not_forgiven() -> None:
    """Only the worst one is deleted: a fault that comes back is a fault."""
    units, bad = [0] * 70, [0] * 70
    for block in (20, 21, 50, 51):
        units[block] = bad[block] = 10
    assert odds(units, bad, 0.05, forgive=32) < 1.0 + 1e-9, "both lie in one window of 32 blocks"
    assert odds(units, bad, 0.05, forgive=5) > 1e6


def test_no_failure_is_no_evidence() -> None:
    """Silence and success leave the odds at one at most, however long."""
    assert odds([], [], 0.05) == 0.0
    assert odds([0] * 5000, [0] * 5000, 0.05) <= 1.0 + 1e-9
    assert odds([20] * 100, [0] * 100, 0.05) <= 1.0 + 1e-9


def test_nothing_is_worse_than_a_stream_that_always_failed() -> None:
    """Against "all of them fail" no evidence exists, and the logarithm of one is not divided by."""
    assert odds([9], [9], 1.0) <= 1.0


def test_huge_evidence_does_not_overflow() -> None:
    """A backlog of ten thousand dead items is only a breach, not an error."""
    assert odds([10_000], [10_000], 0.05) > 1e100


def test_the_onset_weights_are_a_distribution() -> None:
    """They add up to one: half at the switch, a quarter in the watch, a quarter in the guard; nothing after it."""
    assert sum(onset_weight(block) for block in range(GUARD_BLOCKS + 1)) == pytest.approx(1.0)
    assert onset_weight(GUARD_BLOCKS + 1) == 0.0


def test_the_likely_onset_is_where_the_failures_begin() -> None:
    """The sentence counts from there, not from the switch."""
    units, bad = [10] * 40, [0] * 25 + [8] * 15
    assert likely_onset(units, bad, 0.05) == 25
    assert likely_onset(units, [0] * 40, 0.05) in range(40)


def test_the_odds_of_a_healthy_release_are_one_on_average() -> None:
    """The mean of E over releases at exactly 5 % is at most one, at a look that was fixed beforehand."""
    chance = random.Random(7)
    values = []
    for _ in range(2000):
        bad = [sum(chance.random() < 0.05 for _ in range(3)) for _ in range(12)]
        values.append(odds([3] * 12, bad, 0.05))
    assert sum(values) / len(values) < 1.1
