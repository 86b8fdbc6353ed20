"""What counts in a drain: each letter once, by how it ended, and not what it had died of before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from handlers.phases.measure import drain_counts, traffic_counts
from handlers.queue.event import EntityType, Status
from handlers.queue.look import EventState, OutcomeCount
from handlers.release.ledger.dead_letters import ReleaseEvent

AT = datetime(2025, 11, 14, tzinfo=UTC)
FORMER = "InvalidDatetimeFormatError: invalid date '31.02.2025' in row 17"


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


def state(id_: UUID, status: Status, error: str | None = None, code: str | None = None) -> EventState:
    return EventState(
        id=id_,
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


@pytest.mark.parametrize("error", [FORMER, FORMER.replace("31.02.2025", "30.02.2024").replace("17", "4")])
def test_the_same_error_as_before_is_no_outcome(error: str) -> None:
    """Whatever values are in it: no revision can read such a letter."""
    (count,) = drain_counts([letter("completed"), letter("dead_letter", error)])
    assert (count.completed, count.failed, count.known, count.outcomes) == (1, 0, 1, 1)


@pytest.mark.parametrize(
    ("error", "former"),
    [("KeyError: 'rate'", FORMER), (FORMER, None), (FORMER, ""), (None, FORMER)],
    ids=["another error", "no former error", "an empty one", "no error told"],
)
def test_any_other_death_is_a_failure(error: str | None, former: str | None) -> None:
    """Only a letter that is known to have died of this is no news."""
    (count,) = drain_counts([letter("dead_letter", error, former={"error_message": former})])
    assert (count.failed, count.known) == (1, 0)


def test_a_letter_of_the_current_batch_is_judged_by_its_state() -> None:
    """The ledger does not know its end yet. One that is open after the time limit is late, whatever its error says."""
    same, other, late = letter(None), letter(None), letter(None)
    states = [
        state(same.event_id, Status.DEAD_LETTER, FORMER),
        state(other.event_id, Status.DEAD_LETTER, "KeyError: 'rate'"),
        state(late.event_id, Status.RETRY, FORMER, code="22007"),
    ]
    (count,) = drain_counts([same, other, late], states)
    assert (count.known, count.failed, count.late) == (1, 1, 1)
    assert "22007" in count.kinds


def live(entity: EntityType, completed: int, failed: int, known: int) -> OutcomeCount:
    return OutcomeCount(
        entity=entity,
        raw_type=entity.value,
        completed=completed,
        failed=failed,
        known=known,
        open=0,
        late=0,
        held=0,
        held_by="",
        error_samples=(),
        error_kinds=(),
    )


def test_bad_data_as_before_is_no_evidence() -> None:
    """Three vendors with the error that vendors had before, among 54 good products: nothing is new."""
    vendors, products = traffic_counts([live(EntityType.VENDOR, 0, 3, 3), live(EntityType.PRODUCT, 54, 1, 0)])
    assert (vendors.bad, vendors.known, products.bad) == (0, 3, 1)


def test_an_old_error_that_is_everywhere_is_evidence() -> None:
    """Above a fifth of all records it is not as it was, for whatever reason."""
    (counts,) = traffic_counts([live(EntityType.PRODUCT, 12, 8, 4)])
    assert (counts.bad, counts.known) == (4, 4)
    (counts,) = traffic_counts([live(EntityType.PRODUCT, 12, 8, 5)])
    assert (counts.bad, counts.known) == (8, 0)
