"""What the gate is told of the start of the released workers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handlers.phases.facts import Timeline
from handlers.phases.starting import facts_of
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.phase import Phase, Verdict

SWITCH = datetime(2026, 3, 1, tzinfo=UTC)
TIMELINE = Timeline(switched_at=SWITCH, speed=2.0)


def probing(began: float, ended: float | None = None, verdict: Verdict | None = None) -> PhaseRecord:
    return PhaseRecord(
        id=1,
        phase=Phase.PROBING,
        started_at=SWITCH + timedelta(seconds=began),
        finished_at=None if ended is None else SWITCH + timedelta(seconds=ended),
        verdict=verdict,
        sentence="",
    )


def test_a_probe_under_way_says_until_when_the_workers_may_start() -> None:
    """Its limit is in real seconds, what the gate is told in runbook seconds. Said once."""
    assert facts_of([probing(3)], TIMELINE, 120, told=None) == [{"ev": "starting", "t": 0.0, "until": 246.0}]
    assert facts_of([probing(3)], TIMELINE, 120, told={"starting", "queued"}) == []


def test_a_probe_that_passed_says_since_when_they_run() -> None:
    """The first that passed; said once."""
    phases = [
        probing(3, 20, Verdict.INCONCLUSIVE),
        probing(30, 40, Verdict.PASS),
        probing(50, 60, Verdict.PASS),
    ]
    started = {"ev": "started", "t": 80.0}
    assert facts_of(phases, TIMELINE, 120, told={"starting"}) == [started]
    assert facts_of(phases, TIMELINE, 120, told=None)[1:] == [started]
    assert facts_of(phases, TIMELINE, 120, told={"starting", "started"}) == []


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE, None])
def test_a_probe_that_did_not_pass_proves_no_start(verdict: Verdict | None) -> None:
    """Also one that was broken off."""
    assert facts_of([probing(3, 20, verdict)], TIMELINE, 120, told={"starting"}) == []


def test_looks_that_began_without_it_go_on_without_it() -> None:
    """A release that an older version began to judge keeps its judgement."""
    assert facts_of([probing(3, 20, Verdict.PASS)], TIMELINE, 120, told={"queued"}) == []


def test_without_a_probe_nothing_is_told() -> None:
    """No workers were started."""
    assert facts_of([], TIMELINE, 120, told=None) == []
