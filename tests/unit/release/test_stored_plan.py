"""A plan comes back from the ledger as it went in, also from one that an older or a newer program wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.database.jsonable import as_json
from handlers.gate.values import Baseline, Thresholds
from handlers.queue.event import EntityType
from handlers.release.phase import Phase
from handlers.release.planned import EVERYTHING, Check, Plan, PlannedEvent, PlannedHost

STORED = """
{
 "environment": "staging",
 "requested": "main",
 "from_revision": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
 "to_revision": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
 "scope": ["deploying", "probing", "canary", "draining", "watching"],
 "commits": [">bbbbbbb Mend the greenlet error"],
 "hosts": [
  {"name": "web-1", "current": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "rollback_present": true},
  {"name": "web-2", "current": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "rollback_present": true}
 ],
 "events": [
  {"id": "6f1c0de4-0000-4000-8000-000000000001", "entity": "Product", "key": "2646610000000113826",
   "error_code": "xd2s", "fingerprint": "greenlet_spawn has not been called"},
  {"id": "6f1c0de4-0000-4000-8000-000000000002", "entity": "Invoice", "key": "77",
   "error_code": "none", "fingerprint": ""}
 ],
 "set_aside": {"no handler for entity type Package": 2},
 "queue": {"pending": 3, "dead_letter": 4},
 "failed": {"Product, error E1": 1},
 "checks": [
  {"name": "web-1", "good": true, "sentence": "on aaaaaaa, clean", "warns": false},
  {"name": "web-2", "good": true, "sentence": "web-2: tsh-erp is inactive", "warns": true}
 ],
 "thresholds": {
  "good_percent": 95.0, "roll_back_percent": 80.0, "outcomes_min": 20, "failures_min": 3,
  "instant_errors": ["greenlet_spawn"]
 },
 "baseline": {"completed": 97, "failed": 3},
 "seconds_expected": 1834.0,
 "steps": ["deploy bbbbbbb to web-1", "watch: 30 min"],
 "left_by": "",
 "looked_at": "2025-11-14T14:02:03.456789+00:00",
 "good": true,
 "hash": "c32f29c97e5a",
 "reason": "fixed"
}
"""
"""As a ledger has it; ledgers that exist must still be read when the program has changed."""

A, B = "a" * 40, "b" * 40
PLAN = Plan(
    environment="staging",
    requested="main",
    from_revision=A,
    to_revision=B,
    scope=EVERYTHING,
    commits=(">bbbbbbb Mend the greenlet error",),
    hosts=(
        PlannedHost(name="web-1", current=A, rollback_present=True),
        PlannedHost(name="web-2", current=A, rollback_present=True),
    ),
    events=(
        PlannedEvent(
            id="6f1c0de4-0000-4000-8000-000000000001",
            entity=EntityType.PRODUCT,
            key="2646610000000113826",
            error_code="xd2s",
            fingerprint="greenlet_spawn has not been called",
        ),
        PlannedEvent(
            id="6f1c0de4-0000-4000-8000-000000000002",
            entity=EntityType.INVOICE,
            key="77",
            error_code="none",
            fingerprint="",
        ),
    ),
    set_aside={"no handler for entity type Package": 2},
    queue={"pending": 3, "dead_letter": 4},
    failed={"Product, error E1": 1},
    checks=(
        Check(name="web-1", good=True, sentence="on aaaaaaa, clean"),
        Check(name="web-2", good=True, sentence="web-2: tsh-erp is inactive", warns=True),
    ),
    thresholds=Thresholds(),
    baseline=Baseline(completed=97, failed=3),
    seconds_expected=1834.0,
    steps=("deploy bbbbbbb to web-1", "watch: 30 min"),
    looked_at=datetime(2025, 11, 14, 14, 2, 3, 456789, tzinfo=UTC),
)
LATER = (
    "set_aside", "queue", "failed", "commits", "checks", "steps", "left_by", "looked_at", "baseline", "settings",
)  # fmt: skip
"""What was not in every plan from the beginning, and the hash does not stand for."""


def stored(plan: Plan) -> dict[str, Any]:
    """The plan as the ledger gives it back."""
    values: dict[str, Any] = json.loads(as_json(plan.as_json()))
    return values


def test_a_stored_plan_is_read_and_written_as_ever() -> None:
    """Each key of a ledger that exists has its value, the hash is the one that people saw, and no key is renamed."""
    values = json.loads(STORED)
    plan = Plan.from_json(values)
    assert plan == PLAN
    assert plan.hash == values["hash"]
    del values["reason"]  # It is the request's, not the plan's.
    # It came later, and is empty in a ledger that has none.
    assert stored(plan) == {**values, "settings": {}}


def test_the_hash_stands_for_the_settings() -> None:
    """Whoever approves a plan approves the settings that will be used; their order in the ledger does not matter."""
    settings = {"gate": {"good_percent": 95.0, "failures_min": 3}, "hosts": [{"name": "web-1"}]}
    plan = replace(PLAN, settings=settings)
    turned = replace(
        PLAN, settings={"hosts": settings["hosts"], "gate": {"failures_min": 3, "good_percent": 95.0}}
    )
    other = replace(PLAN, settings={**settings, "gate": {"good_percent": 90.0, "failures_min": 3}})
    assert plan.hash == turned.hash == Plan.from_json(stored(plan)).hash
    assert len({PLAN.hash, plan.hash, other.hash}) == 3


@pytest.mark.parametrize("key", LATER)
def test_what_an_older_program_did_not_write_has_a_default(key: str) -> None:
    """A plan without it, or with null, is read all the same, and is the same plan by its hash."""
    values = json.loads(STORED)
    empty = Plan.from_json({**values, key: None})
    values.pop(key, None)
    older = Plan.from_json(values)
    assert older == empty
    assert not getattr(older, key)
    assert older.hash == PLAN.hash


def test_parts_of_parts_have_defaults_too() -> None:
    """A check from before warnings, and a gate from before its newest bar."""
    values = json.loads(STORED)
    del values["checks"][0]["warns"]
    del values["thresholds"]["instant_errors"]
    assert Plan.from_json(values) == PLAN


def test_what_is_unknown_is_ignored() -> None:
    """A newer program may have written more, at the top and in each part."""
    values = json.loads(STORED)
    parts = [
        *values["hosts"],
        *values["events"],
        *values["checks"],
        values["thresholds"],
        values["baseline"],
        values,
    ]
    for part in parts:
        part["of_tomorrow"] = {"x": 1}
    assert Plan.from_json(values) == PLAN


def test_a_number_keeps_its_form_and_the_hash_with_it() -> None:
    """A bar that was stored as 95 stays 95: the person who looked at the plan saw that hash."""
    values = json.loads(STORED)
    values["thresholds"]["good_percent"] = 95
    plan = Plan.from_json(values)
    assert Plan.from_json(stored(plan)).hash == plan.hash != PLAN.hash


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
COUNTS = st.dictionaries(TEXT, st.integers(min_value=0), max_size=3)


@given(
    st.builds(
        Plan,
        environment=TEXT,
        requested=TEXT,
        from_revision=TEXT,
        to_revision=TEXT,
        scope=st.lists(st.sampled_from(list(Phase)), max_size=5).map(tuple),
        commits=st.lists(TEXT, max_size=3).map(tuple),
        hosts=st.lists(
            st.builds(PlannedHost, name=TEXT, current=TEXT, rollback_present=st.booleans()), max_size=3
        ).map(tuple),
        events=st.lists(
            st.builds(
                PlannedEvent,
                id=st.uuids().map(str),
                entity=st.sampled_from(list(EntityType)),
                key=TEXT,
                error_code=TEXT,
                fingerprint=TEXT,
            ),
            max_size=3,
        ).map(tuple),
        set_aside=COUNTS,
        queue=COUNTS,
        failed=COUNTS,
        checks=st.lists(
            st.builds(Check, name=TEXT, good=st.booleans(), sentence=TEXT, warns=st.booleans()), max_size=3
        ).map(tuple),
        thresholds=st.builds(
            Thresholds,
            good_percent=st.floats(0, 100),
            roll_back_percent=st.floats(0, 100),
            outcomes_min=st.integers(1, 99),
            failures_min=st.integers(1, 99),
            instant_errors=st.lists(TEXT, max_size=3).map(tuple),
        ),
        baseline=st.none() | st.builds(Baseline, completed=st.integers(0, 9), failed=st.integers(0, 9)),
        seconds_expected=st.floats(0, 1e6),
        steps=st.lists(TEXT, max_size=3).map(tuple),
        left_by=TEXT,
        settings=st.dictionaries(TEXT, COUNTS | TEXT | st.lists(COUNTS, max_size=2), max_size=2),
        looked_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    )
)
def test_any_plan_comes_back_as_it_was(plan: Plan) -> None:
    """Through the ledger and back it is equal, and so is its hash."""
    back = Plan.from_json(stored(plan))
    assert back == plan
    assert back.hash == plan.hash == stored(plan)["hash"]
