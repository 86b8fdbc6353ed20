"""What a phase notes: under the keys that ledgers have had from the beginning, and nothing of what is unset."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.database.jsonable import as_json
from handlers.gate.values import Finding
from handlers.release.note import (
    ApprovalNote,
    ArmedNote,
    HeldBy,
    HostNote,
    NextLook,
    PhaseNote,
    ReturnNote,
    StepNote,
)

EVENT = UUID("6f1c0de4-0000-4000-8000-000000000001")
AT = datetime(2025, 11, 14, 14, 2, 3, 456789, tzinfo=UTC)
TIME = "2025-11-14T14:02:03.456789+00:00"
STEP: dict[str, Any] = {
    "step": "prepare",
    "outcome": "done",
    "sentence": "ready",
    "operation": "r1-prepare-web-1-1",
}

UNPROVEN: dict[str, Any] = {"needed": 0, "seconds": None, "unit_failed": False}
KEPT: list[tuple[PhaseNote, dict[str, Any]]] = [
    (
        PhaseNote(
            hosts={
                "web-1": HostNote(have="b", ok=True, seen_at=AT, in_a_row=2),
                "web-2": HostNote(ok=False, note="HTTP 503", seen_at=AT),
            }
        ),
        {
            "hosts": {
                "web-1": {"have": "b", "ok": True, "note": "", "seen_at": TIME, "in_a_row": 2} | UNPROVEN,
                "web-2": {"have": None, "ok": False, "note": "HTTP 503", "seen_at": TIME, "in_a_row": 0}
                | UNPROVEN,
            }
        },
    ),
    (
        PhaseNote(
            window_seconds=1800.0,
            watched_seconds=60.5,
            watched_at=AT,
            next=NextLook(what="next look", at=AT),
        ),
        {
            "window_seconds": 1800.0,
            "watched_seconds": 60.5,
            "watched_at": TIME,
            "next": {"what": "next look", "at": TIME},
        },
    ),
    (PhaseNote(looked="97 of 97", finding=Finding.HEALTHY), {"looked": "97 of 97", "finding": "HEALTHY"}),
    (
        PhaseNote(changed=False, steps={"web-1": (StepNote(**STEP),)}),
        {"changed": False, "steps": {"web-1": [STEP]}},
    ),
    (PhaseNote(synthetic_event=EVENT), {"synthetic": str(EVENT)}),
    (PhaseNote(event=EVENT, synthetic=False), {"event": str(EVENT), "synthetic": False}),
    (PhaseNote(failed={"Product, error E1": 2}), {"failed": {"Product, error E1": 2}}),
    (PhaseNote(batch=3), {"batch": 3}),
    (PhaseNote(blames_revision=False), {"blames_revision": False}),
    (
        PhaseNote(armed=ArmedNote(ok=True, sentence="present on 2 of 2 hosts", at=AT)),
        {"armed": {"ok": True, "sentence": "present on 2 of 2 hosts", "at": TIME}},
    ),
    (
        PhaseNote(returns={"web-1": ReturnNote(back=True, revision="a", tries=1, seen_at=AT)}),
        {
            "returns": {
                "web-1": {
                    "back": True,
                    "sentence": "",
                    "revision": "a",
                    "units": "",
                    "operation": "",
                    "tries": 1,
                    "away": False,
                    "seen_at": TIME,
                }
            }
        },
    ),
    (PhaseNote(held_by=HeldBy.DATABASE), {"held_by": "database"}),
    (PhaseNote(around={"lines": ["a"], "state": {}}), {"around": {"lines": ["a"], "state": {}}}),
    (
        PhaseNote(approval=ApprovalNote(needed=2, until=AT, starts=True)),
        {"approval": {"needed": 2, "until": TIME, "starts": True}},
    ),
    (PhaseNote(skipped_by="ops-a"), {"skipped_by": "ops-a"}),
    (PhaseNote(drained=57, left=0), {"drained": 57, "left": 0}),
    (PhaseNote(left=2, set_aside={"Bill: date": 2}), {"left": 2, "set_aside": {"Bill: date": 2}}),
    (
        PhaseNote(why="3 of 9", evidence="4 files", activated="2 of 2 hosts"),
        {"why": "3 of 9", "evidence": "4 files", "activated": "2 of 2 hosts"},
    ),
    (PhaseNote(), {}),
]
"""Each note beside what ledgers that exist have of it."""


def stored(note: PhaseNote) -> dict[str, Any]:
    """The note as the ledger gives it back."""
    values: dict[str, Any] = json.loads(as_json(note.as_json()))
    return values


@pytest.mark.parametrize(
    ("note", "kept"), KEPT, ids=lambda value: ",".join(value) if type(value) is dict else ""
)
def test_a_note_has_the_keys_that_ledgers_have(note: PhaseNote, kept: dict[str, Any]) -> None:
    """Written as ever, and read as ever: no key is renamed on the way, and what is unset is not written."""
    assert stored(note) == kept
    assert PhaseNote.from_json(kept) == note


def test_every_field_is_among_the_examples() -> None:
    """A field that is added has its line above."""
    used = {field.name for note, _ in KEPT for field in fields(note) if getattr(note, field.name) is not None}
    assert used == {field.name for field in fields(PhaseNote)}


def test_what_is_unknown_or_missing_breaks_nothing() -> None:
    """A newer program may have written more, an older one less; null counts as missing."""
    note = PhaseNote.from_json(
        {
            "of_tomorrow": 1,
            "looked": None,
            "hosts": {"web-1": {"have": "b", "mood": "good"}, "web-2": {}},
            "steps": {"web-1": [{"step": "prepare"}]},
            "next": {"of_tomorrow": 2},
        }
    )
    assert note == PhaseNote(
        hosts={"web-1": HostNote(have="b"), "web-2": HostNote()},
        steps={"web-1": (StepNote(step="prepare", outcome=""),)},
        next=NextLook(),
    )


def test_the_end_of_a_canary_takes_the_place_of_its_event() -> None:
    """The ledger joins notes key by key: a synthetic event that was judged is not followed again."""
    sent, ended = PhaseNote(synthetic_event=EVENT), PhaseNote(event=EVENT, synthetic=True)
    assert PhaseNote.from_json(stored(sent) | stored(ended)) == ended
    with pytest.raises(ValueError, match="either open or judged"):
        PhaseNote(synthetic_event=EVENT, synthetic=True)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=9)
WHEN = st.none() | st.datetimes(timezones=st.just(UTC))
HOST = st.builds(
    HostNote,
    have=st.none() | TEXT,
    ok=st.none() | st.booleans(),
    note=TEXT,
    seen_at=WHEN,
    in_a_row=st.integers(0, 9),
)
STEPS = st.lists(st.builds(StepNote, step=TEXT, outcome=TEXT, sentence=TEXT, operation=TEXT), max_size=3)


@given(
    st.builds(
        PhaseNote,
        hosts=st.none() | st.dictionaries(TEXT, HOST, max_size=3),
        steps=st.none() | st.dictionaries(TEXT, STEPS.map(tuple), max_size=3),
        changed=st.none() | st.booleans(),
        next=st.none() | st.builds(NextLook, what=TEXT, at=WHEN),
        looked=st.none() | TEXT,
        window_seconds=st.none() | st.floats(0, 1e6),
        watched_seconds=st.none() | st.floats(0, 1e6),
        watched_at=WHEN,
        finding=st.none() | st.sampled_from(list(Finding)),
        synthetic_event=st.none() | st.uuids(),
        event=st.none() | st.uuids(),
        failed=st.none() | st.dictionaries(TEXT, st.integers(0, 9), max_size=3),
        drained=st.none() | st.integers(0, 9),
        why=st.none() | TEXT,
    )
)
def test_any_note_comes_back_as_it_was(note: PhaseNote) -> None:
    """Through the ledger and back it is equal."""
    assert PhaseNote.from_json(stored(note)) == note
