"""The clocks of controller, database and hosts: which one is off, by how much, in which direction."""

from __future__ import annotations

import pytest

from handlers.host.clock import Offset, offset, reading
from handlers.phases.clock_checks import CONTROLLER, DATABASE, clock_checks, wrong_clocks

OURS = Offset(low=0, high=0)
RIGHT = Offset(low=-0.1, high=0.1)


def off(seconds: float) -> Offset:
    """A clock that was read with a tenth of a second of uncertainty."""
    return Offset(low=seconds - 0.1, high=seconds + 0.1)


@pytest.mark.parametrize(
    ("clocks", "sentence"),
    [
        # The controller is 40 min ahead of all others.
        (
            {DATABASE: off(-2400), "web-1": off(-2400), "web-2": off(-2401)},
            "the clock of the controller is 40 min ahead of that of the database, web-1 and web-2",
        ),
        (
            {DATABASE: off(7), "web-1": off(7), "web-2": off(7)},
            "the clock of the controller is 7 s behind that of the database, web-1 and web-2",
        ),
        (
            {DATABASE: off(-1620), "web-1": RIGHT, "web-2": RIGHT},
            "the clock of the database is 27 min behind that of the controller, web-1 and web-2",
        ),
        (
            {DATABASE: RIGHT, "web-1": off(3 * 3600), "web-2": RIGHT},
            "the clock of web-1 is 3 h ahead of that of the controller, the database and web-2",
        ),
        # Two of one opinion and two of another: the database decides.
        (
            {DATABASE: off(60), "web-1": off(60), "web-2": RIGHT},
            "the clock of web-2 is 60 s behind that of the database and web-1",
        ),
    ],
)
def test_the_clock_that_is_off_is_named(clocks: dict[str, Offset], sentence: str) -> None:
    """The one that differs from most others, with the distance in words, and what to do."""
    checks = clock_checks(clocks)
    assert not any(check.good for check in checks)
    assert any(check.sentence.startswith(sentence) for check in checks), [c.sentence for c in checks]
    assert all("timedatectl" in check.sentence for check in checks)


def test_two_clocks_that_differ_blame_nobody_for_certain() -> None:
    """With the hosts out of reach there is no majority."""
    [check] = clock_checks({DATABASE: off(-1620)})
    assert not check.good
    assert "the controller is 27 min ahead of that of the database: correct the wrong one" in check.sentence


@pytest.mark.parametrize("seconds", [0.0, 4.9, -4.9, 5.0, -5.0])
def test_five_seconds_are_allowed(seconds: float) -> None:
    """In both directions; the controller is one of the clocks."""
    [check] = clock_checks({DATABASE: off(seconds), "web-1": off(seconds)})
    assert check.good
    assert "the controller, the database and web-1 agree" in check.sentence


def test_every_clock_that_is_off_has_its_sentence() -> None:
    """Two hosts can be wrong in different ways."""
    clocks = {CONTROLLER: OURS, DATABASE: RIGHT, "web-1": off(60), "web-2": off(-3600), "web-3": RIGHT}
    assert [sentence.split(" is ")[0] for sentence in wrong_clocks(clocks)] == [
        "the clock of web-1",
        "the clock of web-2",
    ]


def test_a_slow_way_is_no_difference() -> None:
    """What the round trip explains is not held against a clock: a host that answers after 12 s may be right."""
    # Sent at 100, received at 112: the host said 111.5, which is 5.5 s more than the middle.
    slow = offset(100, 112, (111.5, 111.5), (111.5, 111.5))
    assert clock_checks({DATABASE: RIGHT, "web-1": slow})[0].good
    # 130 is certainly ahead.
    assert not clock_checks({DATABASE: RIGHT, "web-1": offset(100, 112, (130, 130), (130, 130))})[0].good


def test_a_busy_host_is_measured_exactly() -> None:
    """A script that takes a minute reads the clock at its start and at its end: only the way there is uncertain."""
    busy = offset(1000.0, 1060.2, (1007.1, 1007.1), (1067.1, 1067.1))
    assert busy.high - busy.low == pytest.approx(0.2)
    assert busy.exceeds(5)
    assert busy.middle == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("1700000000.250000000\n", (1700000000.25, 1700000000.25)),
        # Where `date` does not know %N it prints a letter, or nothing: then a second is uncertain.
        ("1700000000.N\n", (1700000000.0, 1700000001.0)),
        ("1700000000.%N\n", (1700000000.0, 1700000001.0)),
        ("1700000000\n", (1700000000.0, 1700000001.0)),
    ],
)
def test_each_form_of_date_is_read(text: str, times: tuple[float, float]) -> None:
    """GNU, BSD and busybox print different fractions."""
    assert reading(text) == times


@pytest.mark.parametrize("text", ["", "date: illegal option", "-1"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    """It is never taken for a clock that is off."""
    with pytest.raises(ValueError, match="not a Unix time"):
        reading(text)
