"""What has changed since a plan was made: one sentence for each part of the plan's hash."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from handlers.database.jsonable import as_json
from handlers.environment.frozen import settings
from handlers.gate.values import Thresholds
from handlers.phases.drift import differences, settings_differences
from handlers.queue.event import EntityType
from handlers.release.planned import EVERYTHING, Check, Plan, PlannedEvent, PlannedHost
from tests.unit.environment.files import environment


def event(id_: str) -> PlannedEvent:
    """A planned dead letter."""
    return PlannedEvent(id=id_, entity=EntityType.PRODUCT, key=id_, error_code="xd2s", fingerprint="f")


def host(name: str) -> PlannedHost:
    """A planned host."""
    return PlannedHost(name=name, current="a" * 40, rollback_present=True)


PLAN = Plan(
    environment="staging",
    requested="main",
    from_revision="a" * 40,
    to_revision="b" * 40,
    scope=EVERYTHING,
    commits=(),
    hosts=(host("web-1"), host("web-2")),
    events=(event("1"), event("2")),
    set_aside={},
    queue={},
    failed={},
    checks=(Check(name="database", good=True, sentence="answers"),),
    thresholds=Thresholds(good_percent=95.0),
    baseline=None,
    seconds_expected=1,
)
STORED = Plan.from_json(json.loads(as_json(PLAN.as_json())))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"from_revision": "c" * 40}, "the hosts run ccccccc now, they ran aaaaaaa"),
        ({"hosts": (host("web-1"),)}, "web-2 is in the plan, but could not be inspected"),
        ({"hosts": (*PLAN.hosts, host("web-3"))}, "web-3 is not in the plan"),
        ({"events": (event("1"),)}, "1 of 2 planned dead letters were handled elsewhere"),
        ({"thresholds": Thresholds(good_percent=50.0)}, "gate.good_percent is 50.0 now, it was 95.0"),
        ({"thresholds": Thresholds(good_percent=95.0, instant_errors=("a", "b"))},
         "gate.instant_errors is ['a', 'b'] now, it was ['greenlet_spawn']"),
        ({"checks": (Check(name="web-1", good=False, sentence="web-1 has local changes"),)}, "web-1 has local changes"),
    ],
)  # fmt: skip
def test_each_change_has_a_sentence(change: dict[str, Any], sentence: str) -> None:
    """Each part of the hash, and a check that fails now, has its own sentence."""
    assert list(differences(STORED, replace(PLAN, **change))) == [sentence]


def test_an_unchanged_plan_has_no_difference() -> None:
    """The same plan, stored in the ledger and made again, has no difference."""
    assert list(differences(STORED, PLAN)) == []


def test_new_dead_letters_are_no_reason_to_refuse() -> None:
    """A broken revision makes them all the time; exactly the planned ones are drained."""
    assert list(differences(STORED, replace(PLAN, events=(*PLAN.events, event("3"), event("4"))))) == []


def test_each_part_of_the_hash_is_compared() -> None:
    """What changes the hash is a difference, except new dead letters. A new part of the hash must be compared too."""
    moves: list[dict[str, Any]] = [
        {"from_revision": "c" * 40},
        {"hosts": (host("web-1"),)},
        {"events": (event("1"),)},
        {"thresholds": Thresholds(roll_back_percent=70)},
    ]
    for move in moves:
        moved = replace(PLAN, **move)
        assert moved.hash != PLAN.hash
        assert list(differences(STORED, moved))


def test_the_settings_of_a_plan_are_compared_with_the_file() -> None:
    """A release that has not started names what the file says now; a plan of an older ledger has no settings."""
    planned = replace(PLAN, settings=settings(environment()))
    changed = environment(gate={"good_percent": 90}, watch={"window_seconds": 60})
    assert settings_differences(planned, environment()) == []
    assert settings_differences(planned, changed) == [
        "watch.window_seconds is 60 now, the plan has 1800",
        "gate.good_percent is 90 now, the plan has 95",
    ]
    assert settings_differences(PLAN, changed) == []
