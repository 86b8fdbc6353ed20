"""What a watch must prove before it passes, and everything that stands in the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.gate.blocks import worst_window
from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.gate.promotion import health_odds
from handlers.gate.values import Finding
from tests.unit.gate.told import Told


def promoted(told: Told, now: float = 1800.0) -> bool:
    """Whether the verdict at *now* is a pass."""
    return told.gate.verdict(now).finding is Finding.HEALTHY


def test_twenty_clean_records_pass_and_nineteen_do_not() -> None:
    """The number follows from the bounds: 90 % or worse is ruled out with 80 %."""
    told = Told()
    for at in range(19):
        told.done(at)
    found = told.gate.verdict(1800)
    assert found.finding is Finding.INCONCLUSIVE
    assert found.sentence == "19 of 19 records completed; 1 more clean ones are needed"
    told.done(30)
    assert promoted(told)


@given(good=st.integers(0, 19), others=st.integers(0, 100))
def test_nothing_passes_without_twenty_clean_records(good: int, others: int) -> None:
    """Whatever came beside them."""
    assert health_odds(good, good + others, 0.10) < 5


def test_nothing_passes_before_the_watch_is_over() -> None:
    """However good it looks."""
    told = Told()
    told.healthy(0, 1790, 2.0)
    found = told.gate.verdict(1799)
    assert found.finding is Finding.INCONCLUSIVE
    assert found.sentence.endswith("1 s of the watch are left")


def test_what_is_pending_does_not_help_to_pass() -> None:
    """Here it counts as failed: the other way round than for a rollback."""
    told = Told()
    for at in range(1780, 1800):
        told.admit(at)
    assert not promoted(told)


def test_a_record_passes_once_in_ten_minutes() -> None:
    """One record that completes a hundred times is one proof, three in half an hour."""
    told = Told()
    for at in range(0, 1800, 15):
        told.done(at, key="the same")
    assert not promoted(told)
    assert told.gate.verdict(1800).inputs["proof"]["units"] == 3


def test_eight_known_records_that_stay_well_pass() -> None:
    """Each counts again after ten minutes: 24 in half an hour."""
    told = Told()
    for at in range(0, 1800, 15):
        told.done(at, key=f"known-{at // 15 % 8}")
    assert promoted(told)


def test_a_measured_rate_below_the_bar_does_not_pass() -> None:
    """94 % rules out 80 % and 90 %, and is for a person to judge."""
    told = Told()
    for number in range(600):
        (told.dead if number % 17 == 0 else told.done)(number * 3)
    found = told.gate.verdict(1800)
    assert found.finding is Finding.INCONCLUSIVE
    assert found.sentence == "94.0% of 600 records completed, below 95%"


def test_one_blip_does_not_stop_a_promotion() -> None:
    """The worst window is left out of the measured rate."""
    told = Told()
    told.healthy(0, 900, 5.0)
    for at in range(900, 1020, 2):
        told.dead(at)
    told.healthy(1020, 1800, 5.0)
    assert promoted(told)


def test_a_type_without_a_success_does_not_pass() -> None:
    """One failure of one is too little to roll back, and enough to ask."""
    told = Told()
    told.healthy(0, 1800, 5.0)
    told.dead(100, "USER")
    assert told.gate.verdict(1800).sentence == "USER: none of 1 records completed"


def test_a_type_that_fails_now_does_not_pass() -> None:
    """Three records, and half of the type, failed when they last came; old successes do not outlive that."""
    told = Told()
    told.healthy(0, 1800, 2.0)
    for number in range(4):
        told.done(10, "INVOICE", key=f"i{number}")
        told.dead(1700 + number, "INVOICE", key=f"i{number}", fingerprint="new")
    assert told.gate.verdict(1800).sentence == "INVOICE: 4 of 4 records failed when they last came"


def test_a_known_error_of_a_dead_type_does_not_stop_a_promotion() -> None:
    """It was so before, and a rollback would not mend it."""
    types = {"CREDITNOTE": TypeBefore(units=40, ok=0.0, fingerprints={"tax": 1.0})}
    told = Told(DayBefore(units=2000, ok=0.97, types=types))
    told.healthy(0, 1800, 2.0)
    for at in range(0, 1800, 60):
        told.dead(at, "CREDITNOTE", fingerprint="tax")
    assert promoted(told)


@pytest.mark.parametrize("stream", ["*", "PRODUCT"])
def test_nothing_passes_while_a_person_holds_something(stream: str) -> None:
    """And the sentence says what."""
    told = Told()
    told.healthy(0, 1700, 2.0)
    told.tell("held", 1750, seg=stream, per_10s=0)
    assert not promoted(told)
    assert "held" in str(told.gate.verdict(2800).inputs)
    assert not promoted(told, 2800)


def test_a_watch_in_which_a_person_held_everything_never_passes() -> None:
    """It has not begun."""
    told = Told()
    told.healthy(0, 20, 0.5)
    told.tell("held", 20, seg="*", per_10s=0)
    assert all(judged.finding is Finding.INCONCLUSIVE for judged in told.look(30, 4000, 100))


def test_the_time_that_a_person_holds_everything_is_no_part_of_the_watch() -> None:
    """The watch ends that much later."""
    told = Told()
    told.healthy(0, 400, 2.0)
    told.tell("held", 400, seg="*", per_10s=0)
    told.tell("released", 700, seg="*")
    told.healthy(700, 2200, 2.0)
    assert not promoted(told, 2099)
    assert promoted(told, 2100)


def test_nothing_passes_while_the_gate_holds_something() -> None:
    """A held stream has not shown what it does in the open."""
    told = Told()
    told.healthy(0, 1800, 2.0)
    told.tell("intake", 1790, quotas={"INVOICE": 3}, probing=False)
    assert told.gate.verdict(1800).sentence == "the gate holds INVOICE until its probes complete"


def test_nothing_passes_while_the_upstream_is_away() -> None:
    """Its outage hides whatever the release does."""
    told = Told()
    told.healthy(0, 1800, 2.0)
    told.tell("upstream", 1795, up=False)
    assert not promoted(told)


def test_nothing_passes_while_something_waits_untaken() -> None:
    """Free for a minute, and later ones are taken."""
    told = Told()
    told.queued(1700, "INVOICE")
    told.healthy(0, 1800, 2.0)
    assert not promoted(told)


def test_the_worst_window_is_where_most_failed() -> None:
    """And none where nothing failed."""
    assert worst_window([0, 1, 0, 3, 0, 2, 0], 3) == (3, 6)
    assert worst_window([2, 0, 0, 0], 3) == (0, 3)
    assert worst_window([0, 0, 0], 3) == (0, 0)
    assert worst_window([], 3) == (0, 0)
