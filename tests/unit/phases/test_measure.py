"""What counts in a drain: each letter once, by how it ended, and not what it had died of before."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from handlers.environment.model import Gate
from handlers.gate.letters import End
from handlers.phases.measure import drain_limits
from handlers.phases.replays import replay_of
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import EntityType, Status
from handlers.queue.look import EventState
from handlers.release.ledger.dead_letters import ReleaseEvent

AT = datetime(2025, 11, 14, tzinfo=UTC)
FORMER = "InvalidDatetimeFormatError: invalid date '31.02.2025' in row 17"


NEW = "KeyError: 'rate'"
KNOWN = {("Bill", fingerprint(FORMER))}


def letter(status: str | None, error: str | None = None, **changes: Any) -> ReleaseEvent:
    """A drained letter that had died of `FORMER`."""
    values: dict[str, Any] = {
        "event_id": uuid4(),
        "position": 1,
        "entity_type": "Bill",
        "source_entity_id": "1",
        "batch": 1,
        "former": {"error_message": FORMER},
        "redriven_at": AT,
        "settled_at": AT if status else None,
        "status": status,
        "error": error,
    }
    return ReleaseEvent(**values | changes)


def state(status: Status, error: str | None = None, code: str | None = None) -> EventState:
    return EventState(
        id=uuid4(),
        entity=EntityType.BILL,
        raw_type="bill",
        key="1",
        status=status,
        attempt_count=1,
        error_code=code,
        error_message=error,
        started_at=None,
        completed_at=None,
        processing_result=None,
    )


def end(event: ReleaseEvent, now: EventState | None = None, *, is_open: bool = False) -> End | None:
    """How a letter counts; after its time limit, unless it *is_open*."""
    replay = replay_of(event, now, fingerprint(FORMER), KNOWN, is_open=is_open)
    return replay.end if replay else None


@pytest.mark.parametrize("error", [FORMER, FORMER.replace("31.02.2025", "30.02.2024").replace("17", "4")])
def test_an_error_as_before_is_known(error: str) -> None:
    """Whatever values are in it: no revision can read such a letter."""
    assert end(letter("dead_letter", error)) is End.KNOWN
    assert end(letter("failed", error)) is End.KNOWN
    assert end(letter("dead_letter", error, entity_type="Invoice")) is End.FAILED


@pytest.mark.parametrize("error", [NEW, None, ""], ids=["another error", "no error told", "an empty one"])
def test_any_other_death_is_a_failure(error: str | None) -> None:
    """Only a letter that is known to have died of this is no news."""
    assert end(letter("dead_letter", error)) is End.FAILED


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (state(Status.COMPLETED), End.COMPLETED),
        (state(Status.DEAD_LETTER, FORMER), End.KNOWN),
        (state(Status.DEAD_LETTER, NEW), End.FAILED),
        (state(Status.PENDING), End.STUCK),
        (state(Status.PROCESSING), End.STUCK),
        (state(Status.RETRY, NEW, "KeyError"), End.STUCK),
        (state(Status.RETRY, FORMER, "22007"), End.KNOWN),
        (state(Status.RETRY, "waits for Customer 7 (customer_id)", "missing_parent"), End.WAITS),
        (state(Status.DEAD_LETTER, "waits for Customer 7 (customer_id)", "missing_parent"), End.WAITS),
    ],
)
def test_a_letter_past_its_limit_counts_as_it_stands(now: EventState, expected: End) -> None:
    """Unfinished is stuck, unless it has failed as before or waits for a parent."""
    assert end(letter(None), now) is expected


def test_an_open_letter_is_no_failure_while_it_may_be_open() -> None:
    """Its batch is not over, or a limit holds it."""
    assert end(letter(None), state(Status.PENDING), is_open=True) is End.OPEN
    assert end(letter(None), state(Status.DEAD_LETTER, NEW), is_open=True) is End.FAILED


def test_who_redrives_a_failed_letter_again_does_not_undo_its_end() -> None:
    """Until it has another one."""
    failed = letter("dead_letter", NEW)
    assert end(failed, state(Status.PENDING)) is End.FAILED
    assert end(failed, state(Status.COMPLETED)) is End.COMPLETED


def test_a_letter_that_was_deleted_unfinished_does_not_count() -> None:
    """Nobody knows what became of it. One that had ended counts by the ledger."""
    assert end(letter(None)) is None
    assert end(letter("completed")) is End.COMPLETED


def test_the_kinds_are_code_and_beginning_of_the_error() -> None:
    """By them an instant error is told, of letters in retry too; a completed letter has none."""
    replay = replay_of(letter(None), state(Status.RETRY, "x" * 200, "22007"), "", set(), is_open=True)
    assert replay is not None
    assert replay.kinds == ("22007", "x" * 80)
    replay = replay_of(letter(None), state(Status.COMPLETED, "old", "22007"), "", set(), is_open=True)
    assert replay is not None
    assert replay.kinds == ()


@pytest.mark.parametrize(
    ("good", "roll_back", "expected"),
    [
        (95, 80, (0.05, 0.10, 0.20)),
        (99, 80, (0.05, 0.10, 0.20)),
        (80, 50, (0.20, 0.30, 0.50)),
        (0.2, 0.1, (0.998, 0.9983333, 0.999)),
    ],
)
def test_the_drain_is_no_stricter_than_the_environments_threshold(
    good: float, roll_back: float, expected: tuple[float, float, float]
) -> None:
    """95 and 80 are the gate's own numbers; lower ones are taken over."""
    gate = Gate(good_percent=good, roll_back_percent=roll_back)
    limits = drain_limits(SimpleNamespace(gate=gate))  # type: ignore[arg-type]
    assert (limits.q, limits.q_mid, limits.aside_max) == pytest.approx(expected)
    assert (limits.types, limits.failures_min, limits.instant_errors) == (11, 3, ("greenlet_spawn",))
