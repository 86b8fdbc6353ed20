"""How a drain is judged: replays roll back only where they fail as live traffic would."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.gate import drain_rules, letters, phrases, staged
from handlers.gate.drain_rules import judge_drain
from handlers.gate.letters import DrainMeasurement, Group
from handlers.gate.rules import judge
from handlers.gate.staged import DrainLimits
from handlers.gate.values import Baseline, Finding, Judgement

LIMITS = DrainLimits()
NEW = "KeyError: <value>"


def judged(*groups: Group, limits: DrainLimits = LIMITS, **values: Any) -> Judgement:
    return judge_drain(DrainMeasurement(groups=groups, **values), limits)


def group(entity: str = "Product", former: str = "greenlet", **values: Any) -> Group:
    if values.get("failed") and "errors" not in values:
        values["errors"] = ((NEW, values["failed"]),)
    return Group(entity=entity, former=former, **values)


def test_every_letter_completed() -> None:
    """The sentence counts them."""
    judgement = judged(group(completed=52), group("Invoice", completed=6))
    assert (judgement.finding, judgement.sentence) == (Finding.HEALTHY, "58 of 58 completed (100 %)")


def test_no_data_is_no_pass_and_no_rollback() -> None:
    """No letter, or only open ones."""
    assert judged().finding is Finding.NO_DATA
    judgement = judged(group(open=7))
    assert judgement.finding is Finding.NO_DATA
    assert "7 still open" in judgement.sentence


def test_a_source_that_is_down_decides_nothing() -> None:
    """Old numbers do not decide when nothing can be measured now."""
    judgement = judged(group(failed=50), source_down="the database does not answer")
    assert judgement.finding is Finding.SOURCE_DOWN
    assert "the database does not answer" in judgement.sentence


@pytest.mark.parametrize(
    ("counts", "finding"),
    [
        ({"Bill": (2, 0), "Invoice": (0, 1)}, Finding.HEALTHY),
        ({"Bill": (1, 0), "Invoice": (1, 0), "Product": (1, 0)}, Finding.UNHEALTHY),
        ({"Bill": (3, 0), "Product": (0, 9)}, Finding.HEALTHY),
        ({"Bill": (4, 0), "Product": (0, 200)}, Finding.UNHEALTHY),
        ({"Bill": (3, 0), "Product": (0, 200)}, Finding.HEALTHY),
        ({"Bill": (2, 0)}, Finding.INCONCLUSIVE),
    ],
)
def test_new_errors_roll_back_from_three_of_three_or_four_of_four_of_a_type(
    counts: dict[str, tuple[int, int]], finding: Finding
) -> None:
    """With eleven types: as for live traffic at the switch. Fewer set their type aside, and no more."""
    groups = [group(entity, failed=bad, completed=good) for entity, (bad, good) in counts.items()]
    assert judged(*groups).finding is finding


def test_stuck_letters_fail_as_new_errors_do() -> None:
    """Workers that take nothing are a breach, though nothing has failed."""
    judgement = judged(group(stuck=2), group("Invoice", stuck=1))
    assert judgement.finding is Finding.UNHEALTHY
    assert judgement.sentence.startswith("all types: 3 of 3 failed anew (stuck); fewer than 1 in ")


def test_known_letters_never_roll_back() -> None:
    """Four hopeless letters of 58 are no evidence: the drain passes, and says what it has left."""
    judgement = judged(
        group(completed=52), group("Bill", completed=2), group("Bill", "DataError: date", known=2, left=2)
    )
    assert judgement.finding is Finding.HEALTHY
    assert judgement.sentence == (
        "54 of 54 completed (100 %), 2 failed as before; 2 set aside: 2 Bill (DataError)"
    )


def test_letters_that_wait_for_a_parent_never_roll_back() -> None:
    """Their type is set aside after two of two; what is missing may be older than the release."""
    judgement = judged(group(completed=9), group("Invoice", waits=9, left=3))
    assert judgement.finding is Finding.HEALTHY
    assert judgement.sentence == (
        "9 of 18 completed (50 %), 9 without parents; 3 set aside: 3 Invoice (parent)"
    )


def test_nothing_but_failures_is_for_a_person_to_decide() -> None:
    """The revision cures no letter, and nothing is new: neither a pass nor a rollback."""
    judgement = judged(group(known=2, left=40), group("Bill", known=2, left=5))
    assert judgement.finding is Finding.INCONCLUSIVE
    assert judgement.sentence.startswith(
        "0 of 4 completed, 4 failed as before: this revision cures none; 45 set"
    )


def test_an_open_letter_does_not_pass() -> None:
    """A limit holds it: the rest of the drain follows."""
    judgement = judged(group(completed=5, open=1))
    assert judgement.finding is Finding.INCONCLUSIVE
    assert "1 open" in judgement.sentence


@pytest.mark.parametrize(
    "error", ["greenlet_spawn", "MissingGreenlet: greenlet_spawn has not been called", "greenlet_spawn has"]
)
def test_an_instant_error_acts_at_once(error: str) -> None:
    """One letter is enough, also if it had died of that before, and among any number of successes."""
    judgement = judged(group(completed=500), group("Bill", known=1, kinds=("xd2s", error)))
    assert judgement.finding is Finding.UNHEALTHY
    assert judgement.sentence.endswith("one such error is a breach")
    other = judged(group(completed=500, known=1, kinds=("ValueError: value: greenlet_spawn",)))
    assert other.finding is Finding.HEALTHY


def test_the_sentence_of_a_breach_has_numbers_error_and_baseline() -> None:
    """A rollback to a revision that was no better is right, and people should know it."""
    judgement = judged(
        group("Bill", failed=4), group(completed=200), baseline=Baseline(completed=0, failed=58)
    )
    assert judgement.sentence == (
        "Bill: 4 of 4 failed anew (KeyError); fewer than 1 in 942 healthy releases would; "
        "before the release 0 of 58 completed"
    )


def test_the_environments_smallest_number_of_failures_counts() -> None:
    """Fewer never roll back, whatever the odds are."""
    limits = DrainLimits(failures_min=6)
    assert judged(group(failed=5), limits=limits).finding is Finding.INCONCLUSIVE
    assert judged(group(failed=6), limits=limits).finding is Finding.UNHEALTHY


def test_a_release_between_the_bars_is_not_rolled_back() -> None:
    """40 of 300 are surely more than 5 %, and not surely more than 10 %: a person looks."""
    assert judged(group(failed=40, completed=260)).finding is Finding.HEALTHY
    limits = DrainLimits(alpha_mid=1, q_mid=0.05)
    assert judged(group(failed=40, completed=260), limits=limits).finding is Finding.UNHEALTHY


def test_the_gate_of_the_drain_is_pure() -> None:
    """It imports the standard library and the gate, nothing that can fail."""
    for module in (drain_rules, letters, phrases, staged):
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert all(
            name.startswith("handlers.gate.") or name.split(".")[0] in sys.stdlib_module_names
            for name in names
        )


numbers = st.integers(0, 60)
groups_ = st.lists(
    st.builds(
        Group,
        entity=st.sampled_from(["Bill", "Invoice", "StockAdjustment"]),
        former=st.sampled_from(["greenlet", "DataError: date <n>", ""]),
        completed=numbers,
        known=numbers,
        failed=numbers,
        stuck=numbers,
        waits=numbers,
        open=numbers,
        left=st.integers(0, 5000),
        errors=st.sampled_from([(), ((NEW, 3), ("", 2)), (("a b c d e f", 9),)]),
        kinds=st.sampled_from(
            [(), ("22007",), ("greenlet_spawn has not been called; cannot await here " * 2,)]
        ),
    ),
    max_size=6,
    unique_by=lambda each: (each.entity, each.former),
).map(tuple)
measurements = st.builds(
    DrainMeasurement,
    groups=groups_,
    source_down=st.sampled_from([None, None, "gone", "very " * 30]),
    baseline=st.none() | st.builds(Baseline, completed=st.integers(0, 9), failed=st.integers(0, 9)),
)


@given(measurement=measurements)
def test_stored_inputs_give_the_same_judgement(measurement: DrainMeasurement) -> None:
    """Through JSON, with the limits of that time."""
    limits = DrainLimits(q=0.07, instant_errors=("greenlet_spawn", "XX000"))
    judgement = judge_drain(measurement, limits)
    assert judge(**json.loads(json.dumps(judgement.inputs))) == judgement


@given(measurement=measurements)
def test_a_sentence_has_at_most_25_words(measurement: DrainMeasurement) -> None:
    """And two of them are left for the number of batches, unless it is a breach."""
    judgement = judge_drain(measurement, LIMITS)
    bound = 25 if judgement.finding in (Finding.UNHEALTHY, Finding.SOURCE_DOWN) else 23
    assert len(judgement.sentence.split()) <= bound, judgement.sentence


@given(measurement=measurements, more=st.integers(1, 500))
def test_known_and_waiting_letters_change_no_rollback(measurement: DrainMeasurement, more: int) -> None:
    """However many there are: they are evidence neither against the release nor for it."""
    changed = tuple(
        Group(**{**vars(each), "known": each.known + more, "waits": each.waits + more})
        for each in measurement.groups
    )
    after = DrainMeasurement(
        groups=changed, source_down=measurement.source_down, baseline=measurement.baseline
    )
    before = judge_drain(measurement, LIMITS).finding is Finding.UNHEALTHY
    assert (judge_drain(after, LIMITS).finding is Finding.UNHEALTHY) is before


@given(measurement=measurements, data=st.data())
def test_a_success_that_turns_into_a_failure_never_saves_a_release(
    measurement: DrainMeasurement, data: st.DataObject
) -> None:
    """What is rolled back stays rolled back when one more letter had failed."""
    if not measurement.groups or judge_drain(measurement, LIMITS).finding is not Finding.UNHEALTHY:
        return
    changed = list(measurement.groups)
    index = data.draw(st.integers(0, len(changed) - 1))
    old = changed[index]
    moved = data.draw(st.integers(0, old.completed))
    changed[index] = Group(**{**vars(old), "completed": old.completed - moved, "failed": old.failed + moved})
    after = DrainMeasurement(
        groups=tuple(changed), source_down=measurement.source_down, baseline=measurement.baseline
    )
    assert judge_drain(after, LIMITS).finding is Finding.UNHEALTHY
