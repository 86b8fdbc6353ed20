"""Suspicion: enough to hold the intake, never enough to roll back. It promises nothing, so it may be quick.

Two signs. The odds against a stream without any forgiveness, in which slow and waiting items count as bad. And a
backlog: what was admitted in the last seconds and is still open, against how long items took before.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from handlers.gate.blocks import SOFT, Table, extend
from handlers.gate.breaker import Breaker
from handlers.gate.day_before import DayBefore
from handlers.gate.holds import Holds, Untaken
from handlers.gate.odds import odds
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.units import BACKLOG_S, Units
from handlers.gate.weigh import Scales

STALLED_SHARES = (0.97, 0.5)
SAMPLE_MIN = 20


class Suspicion:
    """Finds the streams whose intake should be held, and remembers the odds of what has not changed."""

    def __init__(self, scales: Scales) -> None:
        self._scales = scales
        self._cache: dict[str, tuple[float, int, float]] = {}

    def suspects(self, units: Units, holds: Holds, breaker: Breaker, now: float) -> list[str]:
        """The suspicious streams."""
        p = units.parameters
        free = list(holds.untaken(now, 0.0))
        more = suspicious_items(units, [each for each in free if now - each.free > p.slow_s], now)
        found = [
            stream
            for stream in sorted({*units.tables, *more})
            if self._is_suspect(stream, units, more.get(stream, ()), breaker.since(stream))
        ]
        backlog = max(backlog_odds(units, now), untaken_odds(units, holds, free, now))
        if POOLED not in found and backlog >= p.backlog_odds:
            found.append(POOLED)
        return found

    def _is_suspect(self, stream: str, units: Units, more: Sequence[tuple[int, int]], since: float) -> bool:
        threshold = units.parameters.suspect / self._scales.share(stream)
        failures = units.tables[stream].failures[SOFT] if stream in units.tables else 0
        began, seen, known = self._cache.get(stream, (since, 0, 0.0))
        if not more and began == since and seen == failures and known < threshold:
            # No new failure: the odds are at most what they were.
            return False
        q = null_boundary(units.before, units.parameters, stream)
        value = suspicious_odds(units, stream, more, since, q)
        if not more:
            self._cache[stream] = (since, failures, value)
        return value >= threshold


def suspicious_items(
    units: Units, untaken: Sequence[Untaken], now: float
) -> dict[str, list[tuple[int, int]]]:
    """By stream, what is open and slow, or waits: its block, and 1 if the block does not count it yet."""
    p, found = units.parameters, dict[str, list[tuple[int, int]]]()
    slow = {entity: max(p.slow_s, units.before.p99(entity)) for entity in units.tables if entity != POOLED}
    for course in units.open.values():
        if course.counted and course.bad_at is None:
            waits = course.waiting_since is not None
            if waits or now - course.clock > slow[course.entity]:
                found.setdefault(course.entity, []).append((course.block, 0))
                if not waits:
                    # All types held would hold the parents as well that are waited for.
                    found.setdefault(POOLED, []).append((course.block, 0))
    for item in untaken:
        for stream in (POOLED, item.entity):
            found.setdefault(stream, []).append((p.block(item.free), 1))
    return found


def suspicious_odds(
    units: Units, stream: str, more: Sequence[tuple[int, int]], since: float, q: float
) -> float:
    """E(q) of one stream since its last hold ended."""
    p, table = units.parameters, units.tables.get(stream) or Table()
    first = int(-(-since // p.block_s))
    soft = table.bad[SOFT]
    if not more and not any(soft[first:]):
        return 0.0
    counts, bad = list(table.units), list(soft)
    for column in (counts, bad):
        extend(column, max((block for block, _ in more), default=0))
    for block, uncounted in more:
        counts[block] += uncounted
        bad[block] += 1
    return odds(counts, bad, q, first=first)


def null_boundary(before: DayBefore, parameters: Parameters, stream: str) -> float:
    """The failing share that is no news: the bar, the day before, or the share that waited."""
    p = parameters
    return max(1 - p.ok, before.failing_bound(stream, p.ok), before.of(stream).waited)


def backlog_odds(units: Units, now: float) -> float:
    """How much better a stall explains what is open than chance does. Needs twenty completions to compare with."""
    took = sorted(units.took)
    if len(took) < SAMPLE_MIN:
        return 0.0
    ages = [
        (course.admitted, None if course.settled else now - course.clock)
        for course in units.recent
        if course.waiting_since is None
    ]
    return _largest(ages, took, now)


def untaken_odds(units: Units, holds: Holds, untaken: Sequence[Untaken], now: float) -> float:
    """The same for what is free and not taken, against how long items waited for a worker before."""
    delays = sorted(holds.delays)
    if len(delays) < SAMPLE_MIN or not untaken:
        return 0.0
    ages: list[tuple[float, float | None]] = [(each.free, now - each.free) for each in untaken]
    return _largest([*ages, *((course.admitted, None) for course in units.recent)], delays, now)


def _largest(ages: Sequence[tuple[float, float | None]], before: Sequence[float], now: float) -> float:
    """The largest odds over three windows: when each item began, and its age if it is still open."""
    largest = 0.0
    for seconds in (BACKLOG_S / 3, BACKLOG_S * 2 / 3, BACKLOG_S):
        window = [age for began, age in ages if now - began <= seconds]
        for share in STALLED_SHARES:
            score = sum(_factor(age, before, share) for age in window)
            largest = max(largest, math.exp(min(score, 700.0)))
    return largest


def _factor(age: float | None, before: Sequence[float], share: float) -> float:
    if age is None:
        return math.log(1 - share)
    still_open = (len(before) - bisect_right(before, age) + 0.5) / (len(before) + 1)
    return math.log((share + (1 - share) * still_open) / still_open)
