"""What the gate is told of the start of the released workers: before they run, nobody can take anything."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from handlers.gate.traffic import STARTED, STARTING
from handlers.phases.facts import Fact, Timeline
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.phase import Phase, Verdict


def facts_of(
    phases: Sequence[PhaseRecord], timeline: Timeline, limit_seconds: float, *, told: Collection[str] | None
) -> list[Fact]:
    """That the workers are being started, and since when they run: since the probe has passed. Pure.

    Workers that take long to start are the probe's business, which waits for *limit_seconds* (real ones). After those
    they count as started. *told*: the kinds of fact of the looks before; None before the first.
    """
    probes = [each for each in phases if each.phase is Phase.PROBING]
    facts: list[Fact] = []
    if told is None and probes:
        until = probes[0].started_at + timedelta(seconds=limit_seconds)
        facts.append({"ev": STARTING, "t": 0.0, "until": max(timeline.at(until), 0.0)})
    passed = [each.finished_at for each in probes if each.verdict is Verdict.PASS and each.finished_at]
    if passed and (facts or (STARTING in (told or ()) and STARTED not in (told or ()))):
        facts.append({"ev": STARTED, "t": max(timeline.at(min(passed)), 0.0)})
    return facts
