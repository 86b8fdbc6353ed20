"""A plan as people read it: what would happen, and nothing of it when it may not."""

from __future__ import annotations

from dataclasses import replace

from flows.cli.plan_text import lines
from handlers.gate.values import Thresholds
from handlers.release.phase import Phase
from handlers.release.planned import EVERYTHING, Check, Plan

GOOD = Check(name="database", good=True, sentence="answers")
PLAN = Plan(
    environment="staging",
    requested="main",
    from_revision="a" * 40,
    to_revision="b" * 40,
    scope=EVERYTHING,
    commits=(),
    hosts=(),
    events=(),
    set_aside={},
    queue={},
    failed={},
    checks=(GOOD,),
    thresholds=Thresholds(),
    baseline=None,
    seconds_expected=60,
    steps=("deploy bbbbbbb to web-1", "watch: 30 min"),
)


def test_a_plan_that_may_not_begin_promises_no_step() -> None:
    """With a failed check it says that nothing will happen and why, instead of steps, bars and minutes."""
    bad = replace(PLAN, checks=(GOOD, Check(name="web-1", good=False, sentence="web-1 has local changes")))
    told = "\n".join(lines(bad))
    assert "[FAIL] web-1" in told
    assert "Steps    none: 1 of 2 checks failed" in told
    assert "deploy bbbbbbb" not in told
    assert "about 1 min" not in told
    assert "deploy bbbbbbb" in "\n".join(lines(PLAN))


def test_a_warning_is_marked_and_forbids_nothing() -> None:
    """What somebody should know before they say yes stands out, and the steps stay."""
    told = "\n".join(lines(replace(PLAN, checks=(replace(GOOD, warns=True),))))
    assert "[warn] database" in told
    assert "1. deploy bbbbbbb" in told


def test_a_phase_by_hand_promises_no_rollback() -> None:
    """It deploys nothing, so there is nothing to go back to: a bad number holds it, and the plan says so."""
    told = "\n".join(lines(replace(PLAN, scope=(Phase.PROBING, Phase.WATCHING), to_revision="a" * 40)))
    assert "aaaaaaa stays: nothing is deployed" in told
    assert "held below 80 %" in told
    assert "Rollback" not in told
    assert "Rollback to aaaaaaa" in "\n".join(lines(PLAN))


def test_a_commit_stands_below_its_plan() -> None:
    """What comes with the revision and what goes is set apart from it, on one line each."""
    plan = replace(PLAN, commits=(">bbbbbbb Mend the greenlet error", "<ccccccc " + "long " * 40))
    told = list(lines(plan))
    assert told[1] == "   > bbbbbbb Mend the greenlet error"
    assert told[2].startswith("   < ccccccc long")
    assert len(told[2]) <= 80
