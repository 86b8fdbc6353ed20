"""Who sees to a dead letter, and what a bad batch stops."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handlers.gate.heal_rules import ALL, Candidate, Newer, Stop, Who, standing, stopped_by
from handlers.gate.letters import End, Letter, Replay, group_letters
from handlers.gate.staged import DrainLimits, Rooms
from handlers.gate.values import Finding

DAY = 86_400.0
LETTER = Candidate(
    id="1",
    entity="Product",
    raw_type="product",
    key="1001",
    code="X",
    former="boom <n>",
    is_hard=False,
    dead_seconds=DAY,
    tries=0,
)
STOP = Stop(
    id=7, entity="Product", former="boom <n>", event_id=None, left_seconds=60, times=1, by="x", reason="why"
)
LIMITS = DrainLimits(aside_max=1.0)


def who(letter: Candidate, *stops: Stop) -> Who:
    return standing(letter, stops, after_seconds=DAY, tries_max=3).who


def test_a_letter_that_is_dead_for_a_day_is_healed() -> None:
    """And says which try it is."""
    found = standing(replace(LETTER, tries=1), (), after_seconds=DAY, tries_max=3)
    assert (found.who, found.reason) == (Who.HEALING, "try 2 of 3")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dead_seconds": DAY - 1}, Who.HEALING_LATER),
        ({"tries": 3}, Who.PERSON),
        ({"tries": 9}, Who.PERSON),
        ({"entity": None}, Who.PERSON),
        ({"code": "missing_parent"}, Who.PARENT),
        ({"code": "lease_expired"}, Who.PERSON),
        ({"is_hard": True}, Who.RELEASE),
        ({"newer": Newer.APPLIED}, Who.NOBODY),
        ({"newer": Newer.OPEN}, Who.NOBODY),
        # The first reason that holds is told: no time cures these.
        ({"is_hard": True, "dead_seconds": 0}, Who.RELEASE),
        ({"code": "missing_parent", "tries": 3}, Who.PARENT),
    ],
)
def test_every_other_letter_is_seen_to_by_somebody_else(changes: dict[str, object], expected: Who) -> None:
    """Healing never takes it."""
    assert who(replace(LETTER, **changes)) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "is_stopped"),
    [
        ({}, True),
        ({"former": ALL}, True),
        ({"entity": ALL, "former": ALL}, True),
        ({"entity": "Invoice"}, False),
        ({"former": "another error"}, False),
        ({"event_id": "1"}, True),
        ({"event_id": "2"}, False),
    ],
)
def test_a_stop_is_for_a_type_an_error_or_one_letter(changes: dict[str, object], is_stopped: bool) -> None:
    """A rest ends by itself; a quarantine only by a person."""
    stop = replace(STOP, **changes)  # type: ignore[arg-type]
    assert (who(LETTER, stop) is Who.HEALING_LATER) is is_stopped
    assert (who(LETTER, replace(stop, left_seconds=None)) is Who.PERSON) is is_stopped


def test_a_quarantine_is_told_before_a_rest() -> None:
    """It does not end by itself."""
    found = standing(LETTER, [STOP, replace(STOP, id=8, left_seconds=None)], after_seconds=DAY, tries_max=3)
    assert found.reason == "in quarantine by x (number 8): why"


def replays(entity: str, former: str, *ends: End, batch: int = 1) -> list[Replay]:
    return [Replay(entity=entity, former=former, end=end, batch=batch) for end in ends]


def test_two_of_two_that_die_again_stop_their_error_and_no_other() -> None:
    """They died of what they had died of: that says nothing against their type."""
    groups = group_letters(
        [
            *replays("Product", "a", End.KNOWN, End.KNOWN),
            *replays("Product", "b", End.COMPLETED, End.COMPLETED),
        ]
    )
    assert stopped_by(Finding.HEALTHY, groups, LIMITS) == (("Product", "a"),)


def test_two_of_two_that_die_of_something_new_stop_their_type() -> None:
    """Another type goes on."""
    groups = group_letters(
        [*replays("Product", "a", End.FAILED, End.STUCK), *replays("Customer", "a", End.COMPLETED)]
    )
    assert stopped_by(Finding.HEALTHY, groups, LIMITS) == (("Product", ALL),)


def test_one_that_dies_stops_nothing() -> None:
    """The next one of its kind goes alone."""
    groups = group_letters(replays("Product", "a", End.FAILED))
    assert stopped_by(Finding.INCONCLUSIVE, groups, LIMITS) == ()
    left = [Letter(id=str(n), entity="Product", former="a") for n in range(5)]
    rooms = Rooms(replays("Product", "a", End.FAILED), left, LIMITS, 2)
    assert rooms.fits(left[0])
    rooms.take(left[0])
    assert not rooms.fits(left[1])


def test_a_breach_stops_everything() -> None:
    """Too many letters die of errors that their types had not met."""
    assert stopped_by(Finding.UNHEALTHY, (), LIMITS) == ((ALL, ALL),)


def test_a_new_round_begins_with_one_letter_of_each_type() -> None:
    """However many went well in the round before."""
    left = [Letter(id=str(n), entity="Product", former="a") for n in range(5)]
    rooms = Rooms([], left, LIMITS, 2)
    assert rooms.fits(left[0])
    rooms.take(left[0])
    assert not rooms.fits(left[1])
