"""What the gate is told of a time in which nobody looked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from handlers.phases.facts import Fact, Timeline
from handlers.phases.unwatched import facts_of
from handlers.queue.changes import Attempt, Change
from handlers.queue.event import Status

SWITCH = datetime(2026, 3, 1, tzinfo=UTC)
LAST, NOW = 600, 1200


def at(seconds: float) -> datetime:
    return SWITCH + timedelta(seconds=seconds)


def changed(admitted: float | None = None, ended: float | None = None, failed: float | None = None) -> Change:
    return Change(
        id=uuid4(),
        type="PRODUCT",
        key="1",
        priority=5,
        status=Status.PROCESSING,
        created_at=at(0),
        is_taken=True,
        admitted=None if admitted is None else at(admitted),
        revision=None,
        ended=None if ended is None else at(ended),
        attempts=() if failed is None else (Attempt(at=at(failed), hard=False, code="", fingerprint=""),),
    )


def told(*changes: Change, started: float) -> list[Fact]:
    return facts_of(changes, Timeline(switched_at=SWITCH), at(LAST), at(NOW), at(started))


UNWATCHED: Fact = {"ev": "unwatched", "t": NOW}


@pytest.mark.parametrize("started", [-9000, LAST], ids=["long ago", "before the last look"])
def test_a_server_that_ran_all_the_time_was_not_away(started: float) -> None:
    """Then nothing but the gap is told."""
    assert told(changed(700), started=started) == [UNWATCHED]


def test_a_server_that_was_started_meanwhile_was_away_since_the_last_sign_of_a_worker() -> None:
    """A claim, an end or a failed attempt; what came after the start says nothing."""
    away = [{"ev": "upstream", "t": 830, "up": False}, {"ev": "upstream", "t": 1000, "up": True}]
    changes = changed(700, 720), changed(750, failed=830), changed(1010, 1015)
    assert told(*changes, started=1000) == [UNWATCHED, *away]


def test_without_a_sign_it_was_away_since_the_last_look() -> None:
    """Nothing was applied in that time, so nothing is lost by it."""
    away = [{"ev": "upstream", "t": LAST, "up": False}, {"ev": "upstream", "t": 1000, "up": True}]
    assert told(changed(590), started=1000) == [UNWATCHED, *away]
