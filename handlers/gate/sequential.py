"""The sequential gate: facts in, decision out, at any number of looks.

A release in which each unit fails with at most 5 %, whatever came before it, is rolled back with a probability of at
most 1 % in 24 hours, over all looks, types and tracks together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.gate.breaker import Breaker
from handlers.gate.day_before import DayBefore
from handlers.gate.holds import Holds, Untaken
from handlers.gate.odds import odds
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.promotion import obstacles, proof
from handlers.gate.suspicion import backlog_odds, null_boundary, suspicious_items, suspicious_odds
from handlers.gate.traffic import Fact, Traffic
from handlers.gate.units import HARD, SOFT, WAITS, Table, Units
from handlers.gate.values import Finding

TRACKS = (SOFT, HARD, WAITS)


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """The odds of one stream on one track, with what they were computed from."""

    stream: str
    track: str
    q: float
    q_mid: float
    odds: float
    odds_mid: float
    threshold: float
    threshold_mid: float
    units: tuple[int, ...] = ()
    bad: tuple[int, ...] = ()

    @property
    def breach(self) -> bool:
        return self.odds >= self.threshold and self.odds_mid >= self.threshold_mid


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A finding, its sentence, and the numbers behind it."""

    finding: Finding
    sentence: str
    inputs: dict[str, Any]


class Gate:
    """Feed it events with `observe`, ask it with `decide`, and hold the intake to `throttled`."""

    def __init__(
        self, types: Sequence[str], before: DayBefore | None = None, parameters: Parameters | None = None
    ) -> None:
        self.types = tuple(types)
        self.before = before or DayBefore()
        self.parameters = parameters or Parameters()
        self.traffic = Traffic()
        self.breaker = Breaker(self.parameters)
        self.breaker.hold(POOLED, 0.0)
        self._later: list[Fact] = []
        self._begin()
        self._intake: dict[str, int] = {}
        self._hold(0.0, self.breaker.quotas(self.units, self.types, 0.0))

    def _begin(self) -> None:
        self.units = Units(self.parameters, self.before)
        self.holds = Holds(self.parameters)
        self._cache: dict[tuple[str, str], tuple[int, float]] = {}

    def observe(self, event: Mapping[str, Any]) -> None:
        """Note one event. Unknown kinds are ignored."""
        self.traffic.observe(event)

    def decide(self, now: float) -> Decision:
        """The verdict at *now*, and the next quotas."""
        decision = self.verdict(now)
        self._steer(now)
        return decision

    def throttled(self) -> dict[str, int]:
        """How many items of each held stream may be admitted in the next ten seconds."""
        return dict(self._intake)

    def verdict(self, now: float) -> Decision:
        """The verdict alone: a function of the facts until *now*, the parameters, and *now*."""
        self._read(now)
        p = self.parameters
        untaken = list(self.holds.untaken(now, p.deadline_s))
        weighed = [
            each
            for stream in self.units.tables
            for track in TRACKS
            if (each := self._weigh(stream, track, untaken, now)) is not None
        ]
        breaches = [each for each in weighed if each.breach]
        if breaches:
            worst = max(breaches, key=lambda each: each.odds / each.threshold)
            return self._decision(Finding.UNHEALTHY, _why(worst), worst)
        return self._undecided(now, weighed, untaken)

    def _undecided(self, now: float, weighed: Sequence[Weighed], untaken: Sequence[Untaken]) -> Decision:
        p = self.parameters
        if not self.units.live and not untaken:
            return self._decision(Finding.NO_DATA, "no live event was taken: no data is never a pass", None)
        left = p.watch_s - self.holds.watched(now)
        if left > 0:
            return self._decision(
                Finding.INCONCLUSIVE,
                f"watching for {left:.0f} s more",
                max(weighed, key=_ratio, default=None),
            )
        seen = proof(self.units, self.holds)
        doubts = {
            each.stream: each.odds
            for each in weighed
            if each.odds * self._share(each.stream) >= 2 * p.suspect
        }
        reasons = list(obstacles(self.units, self.holds, seen, doubts, len(untaken)))
        if reasons:
            return self._decision(Finding.INCONCLUSIVE, reasons[0], None)
        return self._decision(
            Finding.HEALTHY,
            f"{seen.good} of {seen.units} records completed; 80 % or worse is ruled out",
            None,
        )

    def _read(self, now: float) -> None:
        facts, again = self.traffic.take()
        if again:
            self._begin()
            self._later = []
        facts = sorted([*self._later, *facts], key=lambda fact: fact.order) if self._later else facts
        self._later = []
        outages = len(self.holds.outages)
        for fact in facts:
            if fact.at > now or (fact.kind == "intake" and fact.at >= now):
                self._later.append(fact)
                continue
            item = self.traffic.items.get(fact.item)
            self.holds.read(fact, item)
            if item is not None:
                self.units.read(fact, item)
            elif fact.kind == "released":
                self.breaker.hold(str(fact.told["seg"]), fact.at)
        self.units.advance(now)
        if outages != len(self.holds.outages) or self.holds.upstream_away:
            self._cache.clear()

    def _share(self, stream: str) -> float:
        return self.parameters.share(stream, len(self.types))

    def _boundaries(self, stream: str, track: str) -> tuple[float, float]:
        p, before = self.parameters, self.before
        bound = before.failing_bound(stream, p.ok)
        if track == WAITS or (track == HARD and before.of(stream).ok > p.bad and self._fingerprints(stream)):
            bound = 0.0
        return max(1 - p.ok, bound), max(1 - p.tolerable, bound)

    def _fingerprints(self, stream: str) -> bool:
        """Whether the errors of the day before are known: then known ones never reach the hard track."""
        if stream == POOLED:
            return any(each.fingerprints for each in self.before.types.values())
        return bool(self.before.of(stream).fingerprints)

    def _weigh(self, stream: str, track: str, untaken: Sequence[Untaken], now: float) -> Weighed | None:
        p, table = self.parameters, self.units.tables[stream]
        part = {SOFT: p.soft_share, HARD: p.hard_share, WAITS: p.waits_share}[track] * self._share(stream)
        threshold, threshold_mid = 1 / (p.alpha * part), 1 / (p.alpha_mid * part)
        q, q_mid = self._boundaries(stream, track)
        mine = [each for each in untaken if stream in (POOLED, each.entity)] if track != WAITS else []
        changed, known = self._cache.get((stream, track), (-1, 0.0))
        if not mine and changed == table.changed[track] and known < threshold:
            # No new failure: the odds are at most what they were.
            return Weighed(
                stream=stream, track=track, q=q, q_mid=q_mid, odds=known, odds_mid=0.0,
                threshold=threshold, threshold_mid=threshold_mid,
            )  # fmt: skip
        if not table.changed[track] and not mine:
            return None
        units, bad = self._counts(table, track, mine, now)
        forgive = p.forgiven_blocks if track == SOFT else 0
        value = odds(units, bad, q, forgive=forgive)
        if not mine:
            self._cache[stream, track] = (table.changed[track], value)
        mid = odds(units, bad, q_mid, forgive=forgive) if value >= threshold else 0.0
        return Weighed(
            stream=stream, track=track, q=q, q_mid=q_mid, odds=value, odds_mid=mid,
            threshold=threshold, threshold_mid=threshold_mid, units=tuple(units), bad=tuple(bad),
        )  # fmt: skip

    def _counts(
        self, table: Table, track: str, untaken: Iterable[Untaken], now: float
    ) -> tuple[list[int], list[int]]:
        p = self.parameters
        units, bad = list(table.units), list(table.track(track))
        for each in untaken:
            block = p.block(each.free)
            units[block] += 1
            bad[block] += track == SOFT or now - each.free > p.stuck_s
        if self.holds.outages:
            for block in range(len(units)):
                if self.holds.masked(block):
                    units[block] = bad[block] = 0
        return units, bad

    def _steer(self, now: float) -> None:
        """Hold what is suspicious, and open again what is not."""
        p, units = self.parameters, self.units
        slow = list(self.holds.untaken(now, p.slow_s))
        more = suspicious_items(units, slow, now)
        suspects = []
        for stream in units.tables:
            q = null_boundary(self.before, p, stream)
            since = self.breaker.since(stream)
            if suspicious_odds(units, stream, more.get(stream, ()), since, q) >= p.suspect / self._share(
                stream
            ):
                suspects.append(stream)
        if POOLED not in suspects and backlog_odds(units, now) >= p.backlog_odds:
            suspects.append(POOLED)
        self.breaker.step(units, suspects, now)
        self._hold(now, self.breaker.quotas(units, self.types, now))

    def _hold(self, now: float, quotas: dict[str, int]) -> None:
        if quotas != self._intake:
            self._intake = quotas
            self.traffic.observe({"ev": "intake", "t": now, "quotas": quotas})

    def _decision(self, finding: Finding, sentence: str, weighed: Weighed | None) -> Decision:
        return Decision(finding=finding, sentence=sentence, inputs={"weighed": weighed})


def _ratio(weighed: Weighed) -> float:
    return weighed.odds / weighed.threshold


def _why(weighed: Weighed) -> str:
    name = "all types together" if weighed.stream == POOLED else f"type {weighed.stream}"
    return f"{name}: {sum(weighed.bad)} of {sum(weighed.units)} units failed ({weighed.track}), odds {weighed.odds:.0f}"
