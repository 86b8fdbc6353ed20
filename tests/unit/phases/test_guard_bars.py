"""The bars of a guard's checks: two in a row act, one is nothing, and what cannot be read never acts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handlers.measurements.measurement import Action, Measurement, State
from handlers.phases.guard_bars import Measured, in_words, pages, taking_back

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)


def checks(
    *states: State,
    name: str = "stuck",
    action: Action = Action.ROLL_BACK,
    minutes: float = 5,
) -> list[Measured]:
    """One measurement at checks so many minutes apart."""
    return [
        Measured(
            at=AT + timedelta(minutes=minutes * number),
            measurements=(Measurement(name=name, state=state, action=action, sentence="9 are stuck"),),
        )
        for number, state in enumerate(states)
    ]


@pytest.mark.parametrize(
    "states",
    [
        (State.BROKEN,),
        (State.BROKEN, State.GOOD),
        (State.BROKEN, State.GOOD, State.BROKEN),
        (State.BROKEN, State.SOURCE_DOWN),
        (State.SOURCE_DOWN, State.SOURCE_DOWN),
        (State.NO_DATA, State.NO_DATA),
        (State.BROKEN, State.SOURCE_DOWN, State.BROKEN),
        (State.BROKEN, State.NO_DATA, State.BROKEN),
    ],
)
def test_one_peak_and_what_cannot_be_read_take_nothing_back(states: tuple[State, ...]) -> None:
    """Only what is broken at two checks in a row counts."""
    assert taking_back(checks(*states)) == []


def test_a_bar_that_rolls_back_does_so_at_the_second_check_in_a_row() -> None:
    """Where the environment says so, and only there."""
    broken = (State.GOOD, State.BROKEN, State.BROKEN)
    assert [each.key for each in taking_back(checks(*broken))] == ["stuck"]
    assert taking_back(checks(*broken, action=Action.SHOW)) == []
    assert taking_back(checks(*broken, action=Action.HOLD)) == []


def test_a_bar_of_one_table_is_not_that_of_another() -> None:
    """Two tables that are old at one check each are no bar that is broken twice."""
    first, second = (
        Measured(
            at=AT,
            measurements=(
                Measurement(
                    name="freshness",
                    subject=table,
                    state=State.BROKEN,
                    action=Action.ROLL_BACK,
                    sentence="old",
                ),
            ),
        )
        for table in ("products", "bills")
    )
    assert taking_back([first, second]) == []


def test_a_broken_bar_is_paged_once() -> None:
    """At its second check in a row, and again after it was whole."""
    told = [
        [
            page.sentence
            for page in pages(checks(*([State.BROKEN] * number)), source_down_seconds=300, speed=1)
        ]
        for number in range(1, 5)
    ]
    assert told == [[], ["stuck: 9 are stuck"], [], []]
    again = checks(State.BROKEN, State.BROKEN, State.GOOD, State.BROKEN, State.BROKEN)
    assert len(list(pages(again, source_down_seconds=300, speed=1))) == 1


def test_a_source_that_is_down_is_paged_at_its_deadline_and_once() -> None:
    """Each check is five minutes after the last one: two are ten minutes."""
    told = [
        len(list(pages(checks(*([State.SOURCE_DOWN] * number)), source_down_seconds=600, speed=1)))
        for number in range(1, 6)
    ]
    assert told == [0, 0, 1, 0, 0]


def test_in_a_rehearsal_the_deadline_follows_the_speed() -> None:
    """Five seconds at speed 60 are five minutes."""
    down = checks(State.SOURCE_DOWN, State.SOURCE_DOWN, minutes=5 / 60)
    assert list(pages(down, source_down_seconds=300, speed=60)) != []
    assert list(pages(down, source_down_seconds=300, speed=1)) == []


@pytest.mark.parametrize("name", ["load", "new_signatures"])
def test_what_the_look_around_tells_is_not_told_twice(name: str) -> None:
    """The machines and the logs have their own pages."""
    broken = checks(State.BROKEN, State.BROKEN, name=name)
    assert list(pages(broken, source_down_seconds=300, speed=1)) == []


def test_the_words_name_what_is_broken_and_what_was_not_read() -> None:
    """Nothing is said where all is good."""
    assert in_words(checks(State.GOOD)[0].measurements) == ""
    assert in_words(checks(State.BROKEN)[0].measurements) == "broken: stuck: 9 are stuck"
    assert in_words(checks(State.SOURCE_DOWN)[0].measurements) == "not read: stuck"
