"""A measurement says how its value compares with its bar, in one sentence, and what a broken bar does."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from handlers.environment.bars import CHECKS, Bars
from handlers.measurements.measurement import (
    Action,
    Measurement,
    State,
    compared,
    no_data,
    source_down,
)


@pytest.mark.parametrize(
    ("value", "bar", "good_above", "state"),
    [
        (95.0, 95.0, True, State.GOOD),
        (94.9, 95.0, True, State.BROKEN),
        (5.0, 5.0, False, State.GOOD),
        (5.1, 5.0, False, State.BROKEN),
        (0.0, 0.0, False, State.GOOD),
        (1.0, 0.0, False, State.BROKEN),
        (1.0, None, False, State.SHOWN),
    ],
)
def test_a_bar_is_kept_by_what_meets_it(
    value: float, bar: float | None, good_above: bool, state: State
) -> None:
    """Exactly at the bar is good. Without a bar nothing is judged."""
    found = compared("oldest", value, bar, "s", "it waits", good_above=good_above)
    assert found.state is state
    assert ("the bar is" in found.sentence) is (bar is not None)


def test_what_could_not_be_read_is_neither_good_nor_broken() -> None:
    """It has no value. A long reason is cut."""
    found = source_down("load", "no answer\nwithin 3 s " + "x" * 500, subject="web-1")
    assert (found.state, found.value, found.key) == (State.SOURCE_DOWN, None, "load web-1")
    assert "\n" not in found.sentence
    assert len(found.sentence) < 200


@pytest.mark.parametrize(
    "found",
    [
        compared("load", 4.5, 4, "", "a load of 4.5", subject="web-1"),
        no_data("success_1h", "0 events ended"),
        source_down("disk", "gone"),
    ],
)
def test_a_measurement_comes_back_from_the_ledger_as_it_was(found: Measurement) -> None:
    """Also one that another version has written a further key of."""
    assert Measurement.from_json({**found.as_json(), "of_tomorrow": 1}) == found


def test_no_bar_acts_unless_it_is_named() -> None:
    """By default the checks are shown only."""
    assert {Bars().action(name) for name in CHECKS} == {"show"}
    bars = Bars(hold=("throughput",), roll_back=("success_1h",))
    assert [bars.action(name) for name in ("throughput", "success_1h", "load")] == [
        "hold",
        "roll_back",
        "show",
    ]
    assert {Action(bars.action(name)) for name in CHECKS} == set(Action)


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"hold": ["sucess_1h"]}, r"hold: there is no check 'sucess_1h'; is 'success_1h' meant\?"),
        ({"roll_back": ["everything"]}, "roll_back: there is no check 'everything'; there are success_1h"),
        ({"hold": ["load"], "roll_back": ["load"]}, "'load' is in hold and in roll_back: name it in one"),
        ({"success_percent": 101}, "success_percent"),
        ({"dead_letters": -1}, "dead_letters"),
        ({"events_min": 0}, "events_min"),
        ({"webhook_seconds": 0}, "webhook_seconds"),
    ],
)
def test_a_wrong_bar_is_refused(keys: dict[str, object], what: str) -> None:
    """A misspelt check would never act, and nobody would notice."""
    with pytest.raises(ValidationError, match=what):
        Bars(**keys)  # type: ignore[arg-type]
