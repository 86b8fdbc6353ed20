"""`runbook heal`: what it refuses, and what it prints."""

from __future__ import annotations

import pytest

from flows.cli.heal import heal_
from flows.cli.heal_text import history_lines, preview_lines
from handlers.environment.day_after import Heal
from handlers.errors import Refused
from handlers.phases.heal import Healed
from handlers.phases.heal_batch import Judged, named
from handlers.phases.heal_blocks import Block
from handlers.phases.heal_preview import Line, Preview
from handlers.release.ledger.heals import State


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        ({"is_due": True, "dry_run": True}, "three different commands"),
        ({"dry_run": True, "history": True, "environment": "x"}, "three different commands"),
        ({}, "name the environment with --environment"),
        ({"dry_run": True}, "name the environment with --environment"),
        ({"history": True}, "name the environment with --environment"),
        ({"environment": "no-such-place", "history": True}, "no-such-place"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: dict[str, object], needle: str) -> None:
    """With one sentence, before anything is opened."""
    values = {"environment": None, "is_due": False, "dry_run": False, "history": False, "limit": 20}
    options = {"without_prefect": False, "detach": False, "json": False, "plain": True}
    with pytest.raises(Refused, match=needle):
        heal_(**values | words | options)


def test_a_run_says_everything_in_one_line() -> None:
    """What was healed first, then what rests, what is waited for, and what is wrong."""
    rests = (("Product", "*"), ("Bill", "boom <n>"))
    healed = Healed(
        environment="x",
        taken_back="3 events of dead workers are back in the queue",
        batches=(
            Judged(sentence="2 of 2 completed", completed=2, tried=2),
            Judged(sentence="bad", completed=0, tried=2, rests=rests),
        ),
        block=Block(sentence="no worker is alive", is_wrong=True),
    )
    assert healed.sentence == (
        "3 events of dead workers are back in the queue, 2 of 4 dead letters completed; "
        "all of Product, Bill (boom <n>) rests: bad; no dead letter goes back: no worker is alive"
    )
    assert named([("*", "*")]) == "all dead letters"


def test_many_letters_are_counted_and_the_first_are_listed() -> None:
    """In eighty columns, whatever is in an error; --json lists all."""
    line = Line(
        id="0" * 36, entity="Product", key="1" * 60, code="X", error="\x1b[31m" + "e" * 200, age_seconds=9e4,
        tries=1, who="a person", what="healing has tried it 3 of 3 times",
    )  # fmt: skip
    found = Preview(
        environment="x",
        idle="",
        block=None,
        out=None,
        taken_back=(),
        next=(),
        letters=(line,) * 100,
        alarms=(),
    )
    lines = list(preview_lines(found, Heal()))
    assert "  and 60 more: --json lists all" in lines
    assert lines[-1] == "      100 a person: healing has tried it 3 of 3 times"
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)


def test_a_history_without_a_run_says_so() -> None:
    """Nothing was healed yet."""
    assert list(history_lines("x", State(), [])) == ["x: no run has ended yet"]
