"""The gate's rules, one by one, and that more failures never make anything look healthier."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.gate import rules, values
from handlers.gate.rules import judge, judge_batch, judge_canary, judge_watch
from handlers.gate.values import (
    Baseline,
    CanaryMeasurement,
    Count,
    Finding,
    Judgement,
    Measurement,
    Thresholds,
)

LIMITS = Thresholds()


def watched(*counts: Count, **values: Any) -> Judgement:
    """The judgement of a watch with these counts."""
    return judge_watch(Measurement(counts=counts, **values), LIMITS)


def drained(*counts: Count, **values: Any) -> Judgement:
    """The judgement of a drain with these counts."""
    return judge_batch(Measurement(counts=counts, **values), LIMITS)


def products(**values: Any) -> Count:
    """A count of products."""
    return Count(entity="Product", **values)


def canary(**values: Any) -> Judgement:
    """The judgement of a canary."""
    completed = {
        "entity": "Product",
        "key": "2646610000000113826",
        "status": "completed",
        "seconds": 1.8,
        "limit_seconds": 60.0,
        "wanted_revision": "9f3c2e1" + "0" * 33,
    }
    return judge_canary(CanaryMeasurement(**{**completed, **values}), LIMITS)


@pytest.mark.parametrize("judged", [watched, drained])
def test_no_data_is_no_pass_and_no_rollback(judged: Any) -> None:
    """No event, or only open events, is NO_DATA, and the sentence counts the open ones."""
    assert judged().finding is Finding.NO_DATA
    waiting = judged(products(open=7))
    assert waiting.finding is Finding.NO_DATA
    assert "7 still open" in waiting.sentence


@pytest.mark.parametrize("judged", [watched, drained])
def test_a_source_that_is_down_holds_whatever_was_counted(judged: Any) -> None:
    """Old numbers do not decide when nothing can be measured now."""
    judgement = judged(products(failed=50), source_down="the database does not answer")
    assert judgement.finding is Finding.SOURCE_DOWN
    assert "the database does not answer" in judgement.sentence


@pytest.mark.parametrize("judged", [watched, drained])
def test_fewer_than_three_failures_never_roll_back(judged: Any) -> None:
    """Two of two is bad luck or worse, and not yet a breach; three of three is."""
    assert judged(products(failed=2)).finding is Finding.INCONCLUSIVE
    assert judged(products(failed=3)).finding is Finding.UNHEALTHY


@pytest.mark.parametrize("judged", [watched, drained])
def test_late_events_count_as_failed(judged: Any) -> None:
    """A stalled worker is a breach, though nothing has failed."""
    judgement = judged(products(completed=2, late=9))
    assert judgement.finding is Finding.UNHEALTHY
    assert "9 unfinished for too long" in judgement.sentence


@pytest.mark.parametrize(
    ("completed", "failed", "finding"),
    [
        (79, 21, Finding.UNHEALTHY),
        (80, 20, Finding.INCONCLUSIVE),
        (94, 6, Finding.INCONCLUSIVE),
        (95, 5, Finding.HEALTHY),
        (799, 201, Finding.UNHEALTHY),
        (9499, 501, Finding.INCONCLUSIVE),
    ],
)
@pytest.mark.parametrize("judged", [watched, drained])
def test_the_thresholds_are_80_and_95_and_belong_to_the_better_side(
    judged: Any, completed: int, failed: int, finding: Finding
) -> None:
    """Exactly 80 % does not roll back, exactly 95 % passes, and no rounding decides."""
    judgement = judged(products(completed=completed, failed=failed))
    assert judgement.finding is finding
    assert f"{completed} of {completed + failed} completed" in judgement.sentence


def test_a_rate_never_reads_as_reaching_a_threshold_that_it_misses() -> None:
    """79.99 % is printed as 79.9 %, not as 80 %."""
    judgement = watched(products(completed=7999, failed=2001))
    assert judgement.finding is Finding.UNHEALTHY
    assert "79.9 %" in judgement.sentence


@pytest.mark.parametrize("judged", [watched, drained])
def test_one_dead_type_is_a_breach_though_the_total_is_good(judged: Any) -> None:
    """Invoices are all dead: 97 % of everything does not hide it."""
    judgement = judged(products(completed=200), Count(entity="Invoice", failed=6))
    assert judgement.finding is Finding.UNHEALTHY
    assert judgement.sentence.startswith("Invoice: 0 of 6 completed (0 %)")


def test_a_watch_does_not_pass_with_a_type_that_only_failed() -> None:
    """Two failures and no success of a type are too few to roll back and too many to pass."""
    judgement = watched(products(completed=200), Count(entity="Invoice", failed=2))
    assert judgement.finding is Finding.INCONCLUSIVE
    assert "Invoice" in judgement.sentence


def test_a_watch_needs_twenty_completed_to_pass() -> None:
    """Nineteen are inconclusive and the sentence says how many are missing; a failure does not fill the gap."""
    judgement = watched(products(completed=19))
    assert judgement.finding is Finding.INCONCLUSIVE
    assert "1 more must complete" in judgement.sentence
    assert watched(products(completed=19, failed=1)).finding is Finding.INCONCLUSIVE
    assert watched(products(completed=20, failed=1)).finding is Finding.HEALTHY


def test_a_batch_may_be_small() -> None:
    """One completed event of a drain is enough to continue; while one is open it is not."""
    assert drained(products(completed=1)).finding is Finding.HEALTHY
    assert drained(products(completed=5, open=1)).finding is Finding.INCONCLUSIVE


def test_a_breach_does_not_wait_for_the_rest_of_the_batch() -> None:
    """Three of four failed: the other twenty need not settle first."""
    assert drained(products(completed=1, failed=3, open=20)).finding is Finding.UNHEALTHY


@pytest.mark.parametrize("judged", [watched, drained])
def test_an_instant_error_acts_at_once(judged: Any) -> None:
    """One event with greenlet_spawn in its error is enough, among any number of successes."""
    error = "MissingGreenlet: greenlet_spawn has not been called; can't call await_only() here"
    judgement = judged(products(completed=500, failed=1, errors=("timeout", error)))
    assert judgement.finding is Finding.UNHEALTHY
    assert "greenlet_spawn" in judgement.sentence
    assert judged(products(completed=500, failed=1, errors=("timeout",))).finding is Finding.HEALTHY


@pytest.mark.parametrize(
    "error",
    [
        "greenlet_spawn has not been called; can't call await_only() here",
        "MissingGreenlet: greenlet_spawn has not been called",
        "sqlalchemy.exc.MissingGreenlet: greenlet_spawn has not been called",
        "greenlet_spawn",
    ],
)
def test_an_instant_error_is_told_by_its_code_its_type_or_its_first_words(error: str) -> None:
    """As the ERP's workers store it, as ours do, and as a code; and it need not have ended in a failure."""
    counted = products(completed=500, kinds=("timeout", "XX000", error))
    assert watched(counted).finding is Finding.UNHEALTHY


@pytest.mark.parametrize(
    "error",
    [
        "ValueError: could not convert string to float: 'greenlet_spawn'",
        'reorder_level: must be a number, not "greenlet_spawn"',
        "reorder_level: greenlet_spawn",
        "Key (sku)=(greenlet_spawn) already exists.",
        "greenlet_spawner is another word",
        "",
    ],
)
def test_a_value_of_a_payload_is_no_instant_error(error: str) -> None:
    """A person can type anything into a field of the source: no text further on in an error acts."""
    counted = products(completed=500, failed=1, errors=(error,), kinds=(error,))
    assert watched(counted).finding is Finding.HEALTHY


def test_an_error_among_many_others_is_not_hidden_by_samples() -> None:
    """Five samples are shown; every kind is looked at."""
    counted = products(completed=500, failed=9, errors=("timeout",) * 5, kinds=("57014", "greenlet_spawn x"))
    assert watched(counted).finding is Finding.UNHEALTHY


@pytest.mark.parametrize("judged", [watched, drained])
def test_what_a_limit_holds_is_named_and_nobodys_failure(judged: Any) -> None:
    """A person holds the queue: the sentence says who, and nothing is rolled back or passed for it."""
    judgement = judged(products(open=18, held=18, held_by="ops-b"))
    assert judgement.finding is Finding.NO_DATA
    assert "18 still open (18 held by ops-b)" in judgement.sentence
    judgement = judged(products(completed=5, open=18, held=12, held_by="ops-b"))
    assert judgement.finding is Finding.INCONCLUSIVE
    assert "18 still open (12 held by ops-b)" in judgement.sentence


def test_letters_that_die_of_what_they_had_died_of_are_no_news() -> None:
    """Four hopeless letters among 54 good ones stop nothing; a new error among them is a breach as before."""
    judgement = drained(products(completed=54, known=4))
    assert judgement.finding is Finding.HEALTHY
    assert "54 of 54 completed (100 %), 4 failed as before the release" in judgement.sentence
    assert drained(products(completed=2, failed=3, known=4)).finding is Finding.UNHEALTHY
    assert drained(products(completed=5, known=4, open=1)).finding is Finding.INCONCLUSIVE


def test_nothing_but_the_former_errors_is_for_a_person_to_decide() -> None:
    """The revision cures nothing, and the former one did not either: neither a pass nor a rollback."""
    judgement = drained(products(known=9))
    assert judgement.finding is Finding.INCONCLUSIVE
    assert judgement.sentence.startswith("9 failed as before the release, and nothing else has settled")
    assert len(judgement.sentence.split()) <= 25


def test_the_sentence_of_a_breach_has_the_baseline() -> None:
    """A revision that was no better before the release is mentioned, and the rollback is still right."""
    judgement = watched(products(failed=9), baseline=Baseline(completed=0, failed=58))
    assert judgement.finding is Finding.UNHEALTHY
    assert judgement.sentence.endswith("before the release 0 of 58 completed")


def test_a_completed_canary_of_the_released_revision_passes() -> None:
    """Completed, by the right worker, with the right row, in time."""
    judgement = canary(worker_revision="9f3c2e1")
    assert judgement.finding is Finding.HEALTHY
    assert judgement.sentence == "Product 2646610000000113826 completed, 1.8 s"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"status": "failed", "error": "rate: 'x' is not\na number"},
            "failed after 1.8 s: rate: 'x' is not a number",
        ),
        ({"status": "open", "seconds": 60.0}, "no outcome after 60.0 s; the limit is 60 s"),
        ({"worker_revision": "41aa07c"}, "by a worker of 41aa07c, not of the released 9f3c2e1"),
        ({"worker_revision": "9"}, "by a worker of 9"),
        ({"differences": ("price is 5, should be 6",)}, "price is 5, should be 6"),
    ],
)
def test_a_canary_that_proves_nothing_fails_and_says_why(changes: dict[str, Any], sentence: str) -> None:
    """Failed, too late, by another revision, or with a wrong row."""
    judgement = canary(**changes)
    assert judgement.finding is Finding.UNHEALTHY
    assert sentence in judgement.sentence


def test_an_open_canary_is_inconclusive() -> None:
    """Before the limit an open event proves nothing; without a database nothing is known."""
    assert canary(status="open").finding is Finding.INCONCLUSIVE
    assert canary(status="open", source_down="no answer").finding is Finding.SOURCE_DOWN


def test_a_negative_count_is_an_error() -> None:
    """A count below zero is a bug in the measuring and must not become a judgement."""
    with pytest.raises(ValueError, match="below zero"):
        products(failed=-1)


def test_there_are_no_other_rules() -> None:
    """Stored inputs with an unknown rule are not judged by a guess."""
    with pytest.raises(ValueError, match="no rule called 'guess'"):
        judge(rule="guess", seen={}, limits={"instant_errors": []})


def test_the_gate_is_pure() -> None:
    """It imports the standard library and its own modules, nothing that can fail."""
    for module in (rules, values):
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        others = {name for name in names if not name.startswith("handlers.gate.")}
        assert {name.split(".")[0] for name in others} <= sys.stdlib_module_names


counts = st.builds(
    Count,
    entity=st.sampled_from(["Product", "Invoice", "Bill"]),
    completed=st.integers(0, 300),
    failed=st.integers(0, 40),
    open=st.integers(0, 40),
    late=st.integers(0, 40),
    errors=st.lists(st.sampled_from(["timeout", "greenlet_spawn", "x"]), max_size=2).map(tuple),
)
measurements = st.builds(
    Measurement,
    counts=st.lists(counts, max_size=4, unique_by=lambda count: count.entity).map(tuple),
    source_down=st.sampled_from([None, None, None, "gone"]),
    baseline=st.none() | st.builds(Baseline, completed=st.integers(0, 9), failed=st.integers(0, 9)),
)
limits = st.builds(
    Thresholds,
    good_percent=st.sampled_from([95, 99.5]),
    roll_back_percent=st.sampled_from([50, 80]),
    outcomes_min=st.integers(1, 60),
    failures_min=st.integers(1, 9),
)
RANK = {
    Finding.HEALTHY: 2,
    Finding.INCONCLUSIVE: 1,
    Finding.NO_DATA: 1,
    Finding.SOURCE_DOWN: 1,
    Finding.UNHEALTHY: 0,
}


@given(
    measurement=measurements, limits=limits, rule=st.sampled_from([judge_watch, judge_batch]), data=st.data()
)
def test_more_failures_never_make_it_healthier(
    measurement: Measurement, limits: Thresholds, rule: Any, data: st.DataObject
) -> None:
    """Whichever count gets more failed or late events, the finding does not improve."""
    if not measurement.counts:
        return
    index = data.draw(st.integers(0, len(measurement.counts) - 1))
    worse = list(measurement.counts)
    old = worse[index]
    worse[index] = Count(
        entity=old.entity,
        completed=old.completed,
        failed=old.failed + data.draw(st.integers(0, 20)),
        open=old.open,
        late=old.late + data.draw(st.integers(0, 20)),
        errors=old.errors,
    )
    after = Measurement(
        counts=tuple(worse), source_down=measurement.source_down, baseline=measurement.baseline
    )
    assert RANK[rule(after, limits).finding] <= RANK[rule(measurement, limits).finding]


@given(measurement=measurements, limits=limits, data=st.data())
def test_a_success_that_turns_into_a_failure_never_makes_it_healthier(
    measurement: Measurement, limits: Thresholds, data: st.DataObject
) -> None:
    """Moving events from completed to failed does not improve the finding of a watch."""
    if not measurement.counts:
        return
    first, rest = measurement.counts[0], measurement.counts[1:]
    moved = data.draw(st.integers(0, first.completed))
    worse = Count(
        entity=first.entity,
        completed=first.completed - moved,
        failed=first.failed + moved,
        open=first.open,
        late=first.late,
        errors=first.errors,
    )
    after = Measurement(counts=(worse, *rest), source_down=measurement.source_down)
    before = Measurement(counts=measurement.counts, source_down=measurement.source_down)
    assert RANK[judge_watch(after, limits).finding] <= RANK[judge_watch(before, limits).finding]


@given(open=st.integers(0, 500), limits=limits, rule=st.sampled_from([judge_watch, judge_batch]))
def test_open_events_alone_never_decide(open: int, limits: Thresholds, rule: Any) -> None:
    """Without an outcome nothing passes and nothing rolls back, with any limits."""
    assert rule(Measurement(counts=(products(open=open),)), limits).finding is Finding.NO_DATA


@given(measurement=measurements, limits=limits, rule=st.sampled_from([judge_watch, judge_batch]))
def test_a_judgement_can_be_made_again_from_its_inputs(
    measurement: Measurement, limits: Thresholds, rule: Any
) -> None:
    """Through JSON and back: same finding, same sentence, same inputs."""
    judgement = rule(measurement, limits)
    assert judge(**json.loads(json.dumps(judgement.inputs))) == judgement


def test_stored_inputs_keep_their_keys() -> None:
    """Ledgers that exist have these keys: a judgement of an older program can be made again."""
    bill = {"entity": "Bill", "completed": 0, "failed": 7, "open": 0, "late": 0, "errors": ["timeout"]}
    stored = {
        "rule": "batch",
        "seen": {
            "counts": [bill | {"held": 0, "held_by": "", "known": 0, "kinds": ["timeout"]}],
            "source_down": None,
            "baseline": {"completed": 5, "failed": 1},
        },
        "limits": json.loads(json.dumps(asdict(LIMITS))),
    }
    judgement = judge(**stored)
    assert judgement.finding is Finding.UNHEALTHY
    assert judgement.inputs == stored
    # As an older version stored them.
    stored["seen"]["counts"] = [bill]
    assert judge(**stored).sentence == judgement.sentence


def test_a_canary_can_be_judged_again_too() -> None:
    """Also the rule that is not a count."""
    judgement = canary(differences=("a", "b"), worker_revision="9f3c2e1")
    assert judge(**json.loads(json.dumps(judgement.inputs))) == judgement


@given(measurement=measurements, limits=limits, rule=st.sampled_from([judge_watch, judge_batch]))
def test_every_judgement_is_one_plain_line(measurement: Measurement, limits: Thresholds, rule: Any) -> None:
    """A sentence, not a paragraph: it is shown in tables and notifications."""
    sentence = rule(measurement, limits).sentence
    assert sentence
    assert "\n" not in sentence
