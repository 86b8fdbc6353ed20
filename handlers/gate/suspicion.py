"""Suspicion: enough to hold the intake, never enough to roll back. It promises nothing, so it may be quick.

Two signs. The odds against a stream without any forgiveness, in which slow and waiting items count as bad. And a
backlog: what was admitted in the last seconds and is still open, against how long items took before.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from handlers.gate.day_before import DayBefore
from handlers.gate.holds import Untaken
from handlers.gate.odds import odds
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.units import BACKLOG_S, Course, Units

STALLED_SHARES = (0.97, 0.5)
SAMPLE, SAMPLE_MIN = 200, 20


def suspicious_items(
    units: Units, untaken: Sequence[Untaken], now: float
) -> dict[str, list[tuple[int, int]]]:
    """By stream, what is open and slow, or waits: its block, and 1 if the block does not count it yet."""
    p, found = units.parameters, dict[str, list[tuple[int, int]]]()
    slow = {entity: max(p.slow_s, units.before.p99(entity)) for entity in units.tables}
    for course in units.open.values():
        if course.counted and course.bad_at is None:
            waits = course.waiting_since is not None
            if waits or now - course.clock > slow[course.entity]:
                found.setdefault(course.entity, []).append((course.block, 0))
                found.setdefault(POOLED, []).append((course.block, 0))
    for item in untaken:
        for stream in (POOLED, item.entity):
            found.setdefault(stream, []).append((p.block(item.free), 1))
    return found


def suspicious_odds(
    units: Units, stream: str, more: Sequence[tuple[int, int]], since: float, q: float
) -> float:
    """E(q) of one stream since its last hold ended."""
    p, table = units.parameters, units.tables[stream]
    first = int(-(-since // p.block_s))
    if not more and not any(table.soft[first:]):
        return 0.0
    counts, bad = list(table.units), list(table.soft)
    for block, uncounted in more:
        counts[block] += uncounted
        bad[block] += 1
    return odds(counts, bad, q, first=min(first, len(counts)))


def null_boundary(before: DayBefore, parameters: Parameters, stream: str) -> float:
    """The failing share that is no news: the bar, the day before, or the share that waited."""
    p = parameters
    return max(1 - p.ok, before.failing_bound(stream, p.ok), before.of(stream).waited)


def backlog_odds(units: Units, now: float) -> float:
    """How much better a stall explains what is open than chance does. Needs twenty completions to compare with."""
    took = sorted(units.took[-SAMPLE:])
    if len(took) < SAMPLE_MIN:
        return 0.0
    recent = [course for course in units.recent if course.waiting_since is None]
    largest = 0.0
    for seconds in (BACKLOG_S / 3, BACKLOG_S * 2 / 3, BACKLOG_S):
        window = [course for course in recent if now - course.admitted <= seconds]
        for share in STALLED_SHARES:
            score = sum(_factor(course, took, share, now) for course in window)
            largest = max(largest, math.exp(min(score, 700.0)))
    return largest


def _factor(course: Course, took: Sequence[float], share: float, now: float) -> float:
    if course.ended is not None or course.bad_at is not None:
        return math.log(1 - share)
    longer = len(took) - bisect_right(took, now - course.clock)
    still_open = (longer + 0.5) / (len(took) + 1)
    return math.log((share + (1 - share) * still_open) / still_open)
