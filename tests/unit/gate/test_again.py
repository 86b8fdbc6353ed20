"""Stored looks are judged again: the same decisions from the same numbers, an answer from others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from handlers.gate import rules
from handlers.gate.again import Again, CannotJudgeError, Numbers, Stored, replay
from handlers.gate.drain_rules import judge_drain
from handlers.gate.explain import explain, kind_of, lines, worth_showing
from handlers.gate.letters import DrainMeasurement, Group, evidence
from handlers.gate.odds import GAINS
from handlers.gate.staged import DrainLimits
from handlers.gate.values import CanaryMeasurement, Count, Finding, Measurement, Thresholds
from tests.unit.gate.stored import Looks, failing, healthy
from tests.unit.gate.told import day


@pytest.fixture(scope="module")
def bad() -> Looks:
    """A release that begins to fail at minute 5 and is rolled back."""
    looks = Looks()
    assert looks.until(1800, failing(looks)).finding is Finding.UNHEALTHY
    return looks


@pytest.fixture(scope="module")
def good() -> Looks:
    """A release that passes at the end of its watch."""
    looks = Looks()
    assert looks.until(1800, healthy(looks)).finding is Finding.HEALTHY
    return looks


def changed(look: Stored, **inputs: Any) -> Stored:
    return replace(look, inputs={**look.inputs, **inputs})


@pytest.mark.parametrize("which", ["bad", "good"])
def test_stored_looks_give_the_same_decisions(which: str, request: pytest.FixtureRequest) -> None:
    """Finding and sentence of every look, from the facts that each was told, through JSON."""
    looks: Looks = request.getfixturevalue(which)
    again = list(replay(looks.stored))
    assert [each.stored.number for each in again if not each.is_same] == []
    assert [each.stored.number for each in again if each.ends] == [len(looks.stored)]


def test_a_watch_that_began_late_and_a_source_that_was_down_are_judged_the_same() -> None:
    """What is left of the watch, and that nothing could be measured, are inputs too."""
    looks = Looks()
    tell = healthy(looks)
    tell(0)
    looks.look(10, source_down="the database does not answer", left=1800)
    for now in range(20, 620, 10):
        tell(now - 10)
        looks.look(now, left=600 - now)
    assert looks.stored[-1].finding is Finding.HEALTHY
    assert all(each.is_same for each in replay(looks.stored))


def test_a_sentence_that_was_changed_is_found(bad: Looks) -> None:
    """What the ledger says and what its inputs give must be one."""
    stored = list(bad.stored)
    stored[7] = replace(stored[7], sentence="all is well")
    assert [each.stored.number for each in replay(stored) if not each.is_same] == [8]


def test_a_fact_that_was_changed_is_found(bad: Looks) -> None:
    """A failure that was turned into a success changes the decision or its numbers."""
    stored = list(bad.stored)
    at = next(
        n for n, look in enumerate(stored) if any(fact["ev"] == "dead" for fact in look.inputs["facts"])
    )
    facts = [{**fact, "ev": "done"} if fact["ev"] == "dead" else fact for fact in stored[at].inputs["facts"]]
    stored[at] = changed(stored[at], facts=facts)
    assert any(not each.is_same for each in replay(stored))


def test_other_numbers_say_what_would_have_been(bad: Looks, good: Looks) -> None:
    """A laxer bar does not roll back what is stored; a bar that the release misses does not let it pass."""
    lax = Numbers(ok=0.5, tolerable=0.3, bad=0.1)
    assert [each.stored.number for each in replay(bad.stored, lax) if each.ends] == []
    strict = [
        each for each in replay(good.stored, Numbers(ok=0.9999, tolerable=0.999, bad=0.99)) if each.ends
    ]
    assert strict == [] or strict[0].judgement.finding is Finding.UNHEALTHY


def test_a_smaller_risk_rolls_back_no_sooner(bad: Looks) -> None:
    """The look of the rollback moves with alpha, in one direction only."""
    found = []
    for alpha in (0.5, 0.01, 1e-9):
        ends = (each.stored.number for each in replay(bad.stored, Numbers(alpha=alpha)) if each.ends)
        found.append(next(ends, len(bad.stored) + 1))
    assert found == sorted(found)
    assert found[1] == len(bad.stored) < found[2]


@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        (Numbers(ok=0.5), "bad < tolerable < ok"),
        (Numbers(ok=1.0), "bad < tolerable < ok"),
        (Numbers(bad=-1), "bad < tolerable < ok"),
        (Numbers(alpha=0), "alpha"),
        (Numbers(alpha=2), "alpha"),
        (Numbers(ok=float("nan")), "ok must be a number"),
        (Numbers(alpha=float("inf")), "alpha must be a number"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(bad: Looks, numbers: Numbers, what: str) -> None:
    """It is the numbers that are wrong then, not the stored look."""
    with pytest.raises(ValueError, match=what) as raised:
        list(replay(bad.stored, numbers))
    assert not isinstance(raised.value, CannotJudgeError)


@pytest.mark.parametrize(
    "broken",
    [
        {"facts": None},
        {"facts": [{"ev": "arrive"}]},
        {"facts": [{"ev": "arrive", "t": "soon", "id": 1}]},
        {"now": "later"},
        {"begin": {}},
        {"begin": {"types": [], "before": {}, "parameters": {"ok": 7}}},
        {"begin": 5},
        {"rule": "tea leaves"},
        {"left": "much"},
    ],
)
def test_a_look_that_lacks_its_inputs_says_which(bad: Looks, broken: Mapping[str, Any]) -> None:
    """Written by hand or by another version: one sentence with the number of the look, and no crash."""
    with pytest.raises(CannotJudgeError, match="look 1 cannot be judged again"):
        list(replay([changed(bad.stored[0], **broken)]))


def test_a_look_whose_facts_were_dropped_says_by_what_and_when(bad: Looks) -> None:
    """Not that a key is missing: nobody has to search for a fault."""
    with pytest.raises(CannotJudgeError, match=r"dropped by `runbook db prune` on 2026-11-30"):
        list(replay([changed(bad.stored[0], pruned="2026-11-30")]))


def test_looks_without_the_first_cannot_be_judged(bad: Looks) -> None:
    """The types, the day before and the numbers are in the first look."""
    with pytest.raises(CannotJudgeError, match="the first look of the release is not stored"):
        list(replay(bad.stored[1:]))


def test_a_parameter_of_a_newer_version_is_no_reason_to_give_up(bad: Looks) -> None:
    """An unknown number is ignored, a missing one has its default."""
    begin = bad.stored[0].inputs["begin"]
    numbers = {**begin["parameters"], "mood": 3}
    del numbers["hold_max_s"]
    stored = [changed(bad.stored[0], begin={**begin, "parameters": numbers}), *bad.stored[1:]]
    assert all(each.is_same for each in replay(stored))


def drained(looks: Looks, *, failed: int) -> None:
    """A canary, and a batch of ten of which *failed* died."""
    followed = CanaryMeasurement(
        entity="Product",
        key="26",
        status="completed",
        seconds=1.5,
        limit_seconds=60,
        wanted_revision="a" * 40,
    )
    batch = Measurement(counts=(Count(entity="Invoice", completed=10 - failed, failed=failed),))
    for judgement in (
        rules.judge_canary(followed, Thresholds()),
        rules.judge_batch(batch, Thresholds()),
    ):
        looks.add(judgement.finding, judgement.sentence, judgement.inputs)


def test_canary_and_drain_are_judged_again_too() -> None:
    """They stand between the looks of the gate; another bar changes their rates' verdict."""
    looks = Looks()
    tell = healthy(looks)
    tell(0)
    looks.look(10)
    drained(looks, failed=1)
    tell(10)
    looks.look(20)
    assert all(each.is_same for each in replay(looks.stored))
    strict = list(replay(looks.stored, Numbers(bad=0.92, tolerable=0.93)))
    assert [each.judgement.finding for each in strict][1:3] == [Finding.HEALTHY, Finding.INCONCLUSIVE]
    drained(looks, failed=4)
    assert [each.stored.number for each in replay(looks.stored) if each.ends] == [6]
    lax = [each.stored.number for each in replay(looks.stored, Numbers(bad=0.5)) if each.ends]
    assert lax == []


def told(looks: Looks, *, number: int = 0) -> tuple[dict[str, Any], str]:
    """The explanation of a look (by default the last one), as values and as text."""
    again = Again()
    for look in looks.stored:
        replayed = again.judge(look)
        if look.number == (number or len(looks.stored)):
            about = explain(again, replayed)
            return about, "\n".join(lines(about))
    raise AssertionError(number)


def test_a_breach_is_explained_by_its_table(bad: Looks) -> None:
    """The blocks, both odds, and thresholds made of alpha, share and track share: every number is made again."""
    about, text = told(bad)
    w = about["weighed"]
    assert all(w[name]["same"] for name in ("odds", "odds_mid", "threshold", "threshold_mid"))
    assert w["odds"]["again"] >= w["threshold"]["again"]
    mean = sum(row["sum"] for row in w["gains"]) / 4
    assert mean == pytest.approx(w["odds"]["again"])
    assert sum(units for _, units, _ in w["blocks"]) > sum(failed for _, _, failed in w["blocks"]) > 5
    assert f"{bad.stored[-1].sentence}" in text
    assert "1 / (alpha 0.01 * share" in text
    assert f"share * track = {w['odds']['again'] * 0.5 * 0.45:,.6g}" in text
    assert f"fewer than 1 in {w['odds']['again'] * 0.5 * 0.45:,.0f} would" in text
    assert "DIFFERS" not in text


def test_a_table_that_was_not_stored_is_counted_again(bad: Looks) -> None:
    """Only a breach has its table in the ledger: for the looks before it is made of the facts, with the same odds."""
    number = len(bad.stored) - 2
    assert bad.stored[number - 1].inputs["weighed"]["blocks"] == []
    about, text = told(bad, number=number)
    assert about["weighed"]["blocks"]
    assert about["weighed"]["odds"]["same"]
    assert "DIFFERS" not in text


def test_a_promotion_is_explained_by_its_proof(good: Looks) -> None:
    """F at both bars from good and units, what is needed, and the rate that was measured."""
    about, text = told(good)
    proof = about["proof"]
    assert proof["bad_odds"]["same"]
    assert proof["mid_odds"]["same"]
    assert proof["counted_again"] == (proof["good"], proof["units"])
    assert "F(20%) = " in text
    assert "of 20 needed" in text
    assert "F(10%) = " in text
    assert "rate 9" in text


def test_a_number_that_was_changed_is_called_different(bad: Looks) -> None:
    """Odds, a threshold or a block of the ledger that do not follow from the others are named."""
    last = bad.stored[-1]
    for change in ({"odds": 1e6}, {"threshold": 3.0}, {"blocks": [[0, 5, 0]]}):
        looks = Looks()
        looks.stored = [*bad.stored[:-1], changed(last, weighed={**last.inputs["weighed"], **change})]
        assert "DIFFERS" in told(looks)[1]


def test_the_boundary_of_a_bad_day_before_is_explained() -> None:
    """q above the bar says what the day before was."""
    looks = Looks(day("PRODUCT", ok=0.7, units=500))
    looks.until(300, failing(looks, from_=0))
    text = told(looks)[1]
    assert "70.0% of 500 units succeeded" in text


def test_canary_and_batch_are_explained_by_their_counts() -> None:
    """What was followed and its limit; completed, failed and late with their rate and both thresholds."""
    looks = Looks()
    drained(looks, failed=1)
    assert "Product 26: completed after 1.5 s, the limit is 60 s" in told(looks, number=1)[1]
    text = told(looks, number=2)[1]
    assert "90.00 % of 10" in text
    assert "good from 95 % on; a breach below 80 %" in text


def test_a_drain_is_judged_again_and_explained() -> None:
    """Its odds by type and together, with the thresholds; other bars and another risk change its verdict."""
    looks = Looks()
    groups = (
        Group(entity="Invoice", former="greenlet", failed=4, errors=(("KeyError: <value>", 4),)),
        Group(entity="Product", former="greenlet", completed=3, known=2, left=9),
    )
    judgement = judge_drain(DrainMeasurement(groups=groups), DrainLimits())
    assert judgement.finding is Finding.UNHEALTHY
    looks.add(judgement.finding, judgement.sentence, judgement.inputs)
    assert [each.is_same for each in replay(looks.stored)] == [True]
    for numbers in (Numbers(alpha=1e-9), Numbers(ok=0.5, tolerable=0.4, bad=0.1)):
        (again,) = replay(looks.stored, numbers)
        assert again.judgement.finding is not Finding.UNHEALTHY
    text = told(looks)[1]
    expected = evidence(4, 0, 0.05)
    assert f"E(0.05) = {expected:.6g}, threshold {1 / (0.01 * 0.5 / 11 * 0.45):.6g} = 1 / (alpha 0.01" in text
    by_hand = sum(((0.05 + 0.95 * gain) / 0.05) ** 4 for gain in GAINS) / 4
    assert by_hand == pytest.approx(expected)


def test_a_look_without_failures_says_that_there_is_no_evidence() -> None:
    """Nothing has failed: there is no table to show."""
    looks = Looks()
    looks.told.done(1, "PRODUCT")
    looks.look(10)
    assert "nothing has failed" in told(looks)[1]


def test_only_looks_that_tell_something_are_shown(bad: Looks) -> None:
    """The first of each kind of sentence, every breach, and the last: numbers alone make no news."""
    shown = worth_showing(bad.stored)
    assert {1, len(bad.stored)} <= shown
    assert len(shown) < len(bad.stored) / 2
    for before, look in pairwise(bad.stored):
        assert (look.number in shown) >= (kind_of(before) != kind_of(look))
    assert worth_showing([]) == set()


def test_looks_of_two_rules_in_turns_are_no_news() -> None:
    """While the drain and live traffic are looked at in turns, only what changes in one of them is shown."""
    looks = Looks()
    for number in range(10):
        measurement = DrainMeasurement(groups=(Group(entity="Product", former="x", completed=number + 1),))
        judgement = judge_drain(measurement, DrainLimits())
        looks.add(judgement.finding, judgement.sentence, judgement.inputs)
        looks.told.done(number * 10 + 1, "PRODUCT", took=1.0)
        looks.look(number * 10 + 10)
    assert worth_showing(looks.stored) == {1, 2, 19, 20}
