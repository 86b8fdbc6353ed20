"""Weighs each stream on each track: its odds, its two boundaries and its threshold. The sum of all risks is alpha."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from handlers.gate.blocks import HARD, SOFT, TRACKS, WAITS
from handlers.gate.day_before import DayBefore
from handlers.gate.holds import Holds, Untaken
from handlers.gate.odds import odds, onsets
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.units import Units

ROUNDING = 1e-8


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """The evidence against one stream on one track."""

    stream: str
    track: str
    q: float
    q_mid: float
    odds: float
    """E(q). An upper bound where `weigh` left the table empty: nothing has failed since it was computed."""
    odds_mid: float
    """E(q'); 0 where E(q) does not reach its threshold."""
    threshold: float
    threshold_mid: float
    forgiven: int
    units: Sequence[int] = ()
    bad: Sequence[int] = ()

    @property
    def breach(self) -> bool:
        """Whether both odds reach their thresholds."""
        return self.odds >= self.threshold and self.odds_mid >= self.threshold_mid

    @property
    def ratio(self) -> float:
        """How near it is to a breach."""
        return self.odds / self.threshold

    @property
    def rank(self) -> tuple[float, str, str]:
        """The order of what is nearest. Rounded, because sums differ in the last digit."""
        return float(f"{self.ratio:.9g}"), self.stream, self.track

    def inputs(self) -> dict[str, Any]:
        """Everything that the arithmetic needs, for JSON: `weigh_again` makes the odds from it."""
        blocks = [[block, count, self.bad[block]] for block, count in enumerate(self.units) if count]
        return {
            "stream": self.stream,
            "track": self.track,
            "q": self.q,
            "q_mid": self.q_mid,
            "odds": self.odds,
            "odds_mid": self.odds_mid,
            "threshold": self.threshold,
            "threshold_mid": self.threshold_mid,
            "forgiven_blocks": self.forgiven,
            "length": len(self.units),
            "blocks": blocks,
        }


def weigh_again(inputs: Mapping[str, Any]) -> tuple[float, float]:
    """E(q) and E(q') from stored inputs."""
    units, bad = [0] * inputs["length"], [0] * inputs["length"]
    for block, count, failed in inputs["blocks"]:
        units[block], bad[block] = count, failed
    forgive = inputs["forgiven_blocks"]
    value = odds(units, bad, inputs["q"], forgive=forgive)
    reached = value >= inputs["threshold"]
    return value, odds(units, bad, inputs["q_mid"], forgive=forgive) if reached else 0.0


class Scales:
    """Weighs, and remembers the odds of what has not changed."""

    def __init__(self, parameters: Parameters, before: DayBefore, types: Collection[str]) -> None:
        self.parameters = parameters
        self.before = before
        self.types = types
        self._cache: dict[tuple[str, str], tuple[int, int, float]] = {}
        self._boundaries: dict[tuple[str, str], tuple[float, float]] = {}
        self._outages: list[tuple[float, float]] = []

    def share(self, stream: str) -> float:
        """The stream's share of the risk."""
        return self.parameters.share(stream, len(self.types))

    def weigh(
        self, units: Units, holds: Holds, untaken: Collection[Untaken], now: float
    ) -> tuple[Weighed, ...]:
        """Every stream and track in which something failed."""
        if holds.outages != self._outages:
            self._cache.clear()
            self._outages = list(holds.outages)
        streams = {*units.tables, *(each.entity for each in untaken)}
        return tuple(
            weighed
            for stream in sorted(streams)
            for track in TRACKS
            if (weighed := self._weigh(stream, track, units, holds, untaken=untaken, now=now)) is not None
        )

    def exactly(
        self, stream: str, track: str, units: Units, holds: Holds, *, untaken: Collection[Untaken], now: float
    ) -> Weighed | None:
        """One stream on one track with its table, whether or not something new has failed; None if nothing ever did."""
        remembered = dict(self._cache)
        weighed = self._weigh(stream, track, units, holds, untaken=untaken, now=now)
        # To be asked changes nothing: what is remembered decides which odds are computed anew.
        self._cache = remembered
        if weighed is None or weighed.units:
            return weighed
        return _exactly(weighed, units, holds, _of(stream, track, untaken), now)

    def _weigh(
        self, stream: str, track: str, units: Units, holds: Holds, *, untaken: Collection[Untaken], now: float
    ) -> Weighed | None:
        p, table = self.parameters, units.tables.get(stream)
        mine = _of(stream, track, untaken)
        failures = table.failures[track] if table is not None else 0
        if not failures and not mine:
            return None
        part = {SOFT: p.soft_share, HARD: p.hard_share, WAITS: p.waits_share}[track] * self.share(stream)
        threshold, threshold_mid = 1 / (p.alpha * part), 1 / (p.alpha_mid * part)
        forgive = p.forgiven_blocks if track == SOFT else 0
        q, q_mid = self._boundary(stream, track)

        length = p.block(now) + 1
        seen, then, value = self._cache.get((stream, track), (0, 0, 0.0))
        known = value + onsets(then, length)
        fresh = bool(mine) or seen != failures or known >= min(threshold, 2 * p.suspect / self.share(stream))
        bare = Weighed(
            stream=stream,
            track=track,
            q=q,
            q_mid=q_mid,
            odds=known,
            odds_mid=0.0,
            threshold=threshold,
            threshold_mid=threshold_mid,
            forgiven=forgive,
        )
        if not fresh:
            # No new failure: the odds are at most what they were, and the weight of the onsets since then.
            return bare
        weighed = _exactly(bare, units, holds, mine, now)
        if not mine:
            self._remember(weighed, units, now)
        return weighed

    def leading(
        self,
        weighed: Sequence[Weighed],
        units: Units,
        holds: Holds,
        *,
        untaken: Collection[Untaken],
        now: float,
    ) -> Weighed | None:
        """What is nearest to a breach, with its odds at *now* and without its table."""
        best: Weighed | None = None
        for each in sorted(weighed, key=lambda one: one.ratio, reverse=True):
            if best is not None and best.ratio > each.ratio * (1 + ROUNDING):
                break
            mine = _of(each.stream, each.track, untaken)
            exact = each if each.units else _exactly(each, units, holds, mine, now)
            if not mine:
                self._remember(exact, units, now)
            if best is None or exact.rank > best.rank:
                best = exact
        return replace(best, units=(), bad=()) if best is not None else None

    def _remember(self, weighed: Weighed, units: Units, now: float) -> None:
        """Keep odds that were computed from the table alone."""
        stream, track = weighed.stream, weighed.track
        failures, length = units.tables[stream].failures[track], self.parameters.block(now) + 1
        self._cache[stream, track] = (failures, length, weighed.odds)

    def _boundary(self, stream: str, track: str) -> tuple[float, float]:
        """q and q': the two bars, moved to where the stream was the day before if it was worse."""
        if (stream, track) not in self._boundaries:
            p, before = self.parameters, self.before
            bound = before.failing_bound(stream, p.ok)
            if track == WAITS or (
                track == HARD and before.of(stream).ok > p.bad and before.has_fingerprints(stream)
            ):
                # What was known never gets there.
                bound = 0.0
            self._boundaries[stream, track] = (max(1 - p.ok, bound), max(1 - p.tolerable, bound))
        return self._boundaries[stream, track]


def _of(stream: str, track: str, untaken: Collection[Untaken]) -> list[Untaken]:
    """What of the untaken belongs to a stream. It waits for no parent."""
    return [each for each in untaken if stream in (POOLED, each.entity)] if track != WAITS else []


def _exactly(
    weighed: Weighed, units: Units, holds: Holds, untaken: Collection[Untaken], now: float
) -> Weighed:
    counts, bad = _counts(weighed.stream, weighed.track, units, holds, untaken=untaken, now=now)
    value = odds(counts, bad, weighed.q, forgive=weighed.forgiven)
    reached = value >= weighed.threshold
    mid = odds(counts, bad, weighed.q_mid, forgive=weighed.forgiven) if reached else 0.0
    return replace(weighed, odds=value, odds_mid=mid, units=counts, bad=bad)


def _counts(
    stream: str, track: str, units: Units, holds: Holds, *, untaken: Collection[Untaken], now: float
) -> tuple[list[int], list[int]]:
    """The block table, with what nobody takes and without what was admitted in an outage of the upstream."""
    p, table = units.parameters, units.tables.get(stream)
    length = p.block(now) + 1
    counts = list(table.units) if table is not None else [0] * length
    bad = list(table.bad[track]) if table is not None else [0] * length
    for each in untaken:
        block = p.block(each.free)
        counts[block] += 1
        bad[block] += track == SOFT or now - each.free > p.stuck_s
    if holds.outages:
        for block in range(len(counts)):
            if holds.masked(block):
                counts[block] = bad[block] = 0
    return counts, bad
