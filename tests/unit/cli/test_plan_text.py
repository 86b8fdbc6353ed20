"""The text of a plan: its steps, or no steps when a check failed."""

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


def test_a_plan_with_a_failed_check_has_no_steps() -> None:
    """With a failed check it shows the reason instead of steps, thresholds and duration."""
    bad = replace(PLAN, checks=(GOOD, Check(name="web-1", good=False, sentence="web-1 has local changes")))
    text = "\n".join(lines(bad))
    assert "[FAIL] web-1" in text
    assert "Steps    none: 1 of 2 checks failed" in text
    assert "deploy bbbbbbb" not in text
    assert "about 1 min" not in text
    assert "deploy bbbbbbb" in "\n".join(lines(PLAN))


def test_a_warning_is_marked_and_forbids_nothing() -> None:
    """A warning is marked, and the steps are shown."""
    text = "\n".join(lines(replace(PLAN, checks=(replace(GOOD, warns=True),))))
    assert "[warn] database" in text
    assert "1. deploy bbbbbbb" in text


def test_a_run_without_a_deploy_has_no_rollback() -> None:
    """It deploys nothing, so a breach holds it instead of rolling back, and the plan says so."""
    text = "\n".join(lines(replace(PLAN, scope=(Phase.PROBING, Phase.WATCHING), to_revision="a" * 40)))
    assert "aaaaaaa stays: nothing is deployed" in text
    assert "held below 80 %" in text
    assert "Rollback" not in text
    assert "Rollback to aaaaaaa" in "\n".join(lines(PLAN))


def test_commits_are_listed_below_the_plan() -> None:
    """Each commit that the revision adds or removes has its own shortened line."""
    plan = replace(PLAN, commits=(">bbbbbbb Fix the greenlet error", "<ccccccc " + "long " * 40))
    text = list(lines(plan))
    assert text[1] == "   > bbbbbbb Fix the greenlet error"
    assert text[2].startswith("   < ccccccc long")
    assert len(text[2]) <= 80
