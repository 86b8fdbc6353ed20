"""The sequential gate: facts in, decision out, at any number of looks.

A release in which each unit fails with at most 5 %, whatever came before it, is rolled back with a probability of at
most 1 % in 24 hours, over all looks, types and tracks together. Time 0 is the switch to the released revision.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from handlers.gate import sentences
from handlers.gate.breaker import Breaker
from handlers.gate.day_before import DayBefore
from handlers.gate.holds import Holds, Untaken
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.promotion import Proof, obstacles, proof
from handlers.gate.suspicion import Suspicion
from handlers.gate.traffic import Fact, Traffic
from handlers.gate.units import Units
from handlers.gate.values import Finding, Judgement
from handlers.gate.weigh import Scales, Weighed


class Gate:
    """Feed it events with `observe`, ask it with `decide`, and hold the intake to `throttled`."""

    def __init__(
        self,
        types: Collection[str],
        before: DayBefore | None = None,
        parameters: Parameters | None = None,
        *,
        slow_start: bool = True,
    ) -> None:
        """*slow_start*: whether the release begins with its intake held to probes."""
        self.types = tuple(types)
        self.before = before or DayBefore()
        self.parameters = parameters or Parameters()
        self._told = asdict(self.parameters)
        self.traffic = Traffic()
        self.breaker = Breaker(self.parameters)
        self.own: list[dict[str, Any]] = []
        """The quotas that it set itself, as events, for whoever stores what it was told. They may be taken away."""
        self.unconfirmed_s = 0.0
        """After a verdict: in how many seconds a breach counts if it shows again. 0 where there is none to confirm."""
        self._intake: dict[str, int] = {}
        self._begin()
        if slow_start:
            self.breaker.hold(POOLED, 0.0)
            self._hold(0.0)

    def hold(self, streams: Iterable[str], at: float) -> None:
        """Hold streams to their probes, as at the switch: a new controller goes on with what the last one held."""
        for stream in streams:
            self.breaker.hold(stream, at)
        self._hold(at)

    def open(self, at: float) -> None:
        """Hold nothing any more: the intake was given free at that time, and nobody steers it from then on."""
        self.breaker = Breaker(self.parameters)
        self._intake = {}
        self._note_intake(at)

    def observe(self, event: Mapping[str, Any]) -> None:
        """Note one event. Unknown kinds are ignored."""
        self.traffic.observe(event)

    def decide(self, now: float, source_down: str | None = None, *, left: float | None = None) -> Judgement:
        """The verdict at *now*, and the quotas until the next look."""
        judgement = self.verdict(now, source_down, left=left)
        if source_down is None:
            self._steer(now)
        return judgement

    def throttled(self) -> dict[str, int]:
        """How many items of each held stream may be admitted in the next ten seconds. `*` is all together."""
        return dict(self._intake)

    def verdict(self, now: float, source_down: str | None = None, *, left: float | None = None) -> Judgement:
        """The verdict alone: a function of the facts until *now*, the parameters, and *now*.

        *left* is how much of the watch is left, where it did not begin at the switch.
        """
        self.unconfirmed_s = 0.0
        if source_down is not None:
            return self._judgement(Finding.SOURCE_DOWN, sentences.source_down(source_down), now)
        self._read(now)
        if self.units.instant is not None:
            return self._judgement(Finding.UNHEALTHY, sentences.instant(*self.units.instant), now)
        # What the gate lets through may have to wait for the next of its ticks.
        age = max(self.parameters.deadline_s, 2 * self.parameters.tick_s)
        untaken = list(self.holds.untaken(now, age))
        weighed = self._scales.weigh(self.units, self.holds, untaken, now)
        breaches = [each for each in weighed if each.breach]
        if breaches:
            worst = max(breaches, key=lambda each: each.rank)
            self.unconfirmed_s = seconds = self.holds.to_be_confirmed(now)
            if seconds > 0:
                sentence = sentences.to_be_confirmed(worst, seconds)
                return self._judgement(Finding.INCONCLUSIVE, sentence, now, worst, reasons=[sentence])
            part = 1 / (worst.threshold * self.parameters.alpha)
            sentence = sentences.breach(worst, self.parameters, part)
            return self._judgement(Finding.UNHEALTHY, sentence, now, worst)
        if left is None:
            left = self.parameters.watch_s - self.holds.watched(now)
        return self._without_breach(now, weighed, untaken, left)

    def weighed(self, stream: str, track: str, now: float) -> Weighed | None:
        """One stream on one track with its block table, as `verdict` weighs it at *now*; None if nothing failed."""
        self._read(now)
        # What the gate lets through may have to wait for the next of its ticks.
        age = max(self.parameters.deadline_s, 2 * self.parameters.tick_s)
        untaken = list(self.holds.untaken(now, age))
        return self._scales.exactly(stream, track, self.units, self.holds, untaken=untaken, now=now)

    def _without_breach(
        self, now: float, weighed: Sequence[Weighed], untaken: Collection[Untaken], left: float
    ) -> Judgement:
        p = self.parameters
        leading = self._scales.leading(weighed, self.units, self.holds, untaken=untaken, now=now)
        if not self.units.live and not untaken:
            sentence = sentences.STARTING if self.holds.are_starting(now) else sentences.NO_DATA
            return self._judgement(Finding.NO_DATA, sentence, now, leading)
        seen = proof(self.units, self.holds)
        doubts = [each for each in weighed if each.odds * self._scales.share(each.stream) >= 2 * p.suspect]
        reasons = list(obstacles(self.units, self.holds, seen, doubts, len(untaken)))
        if left > 0:
            sentence = sentences.watching(seen, left)
            return self._judgement(Finding.INCONCLUSIVE, sentence, now, leading, seen=seen, reasons=reasons)
        if reasons:
            return self._judgement(Finding.INCONCLUSIVE, reasons[0], now, leading, seen=seen, reasons=reasons)
        return self._judgement(Finding.HEALTHY, sentences.passed(seen, p), now, leading, seen=seen)

    def _begin(self) -> None:
        """Forget what was made of the facts, but not the facts."""
        self.holds = Holds(self.parameters)
        self.units = Units(self.parameters, self.before, self.holds)
        self._scales = Scales(self.parameters, self.before, self.types)
        self._suspicion = Suspicion(self._scales)

    def _read(self, now: float) -> None:
        for fact in self.traffic.take(now):
            item = self.traffic.items.get(fact.item)
            if not self.holds.follows(fact) or (item is not None and not self.units.follows(fact, item)):
                # It came too late to be read after the others: read all again, in order.
                self._begin()
                for every in self.traffic.until(now):
                    self._note(every)
                self.units.outcomes.clear()
                break
            self._note(fact)
        self.units.advance(now)

    def _note(self, fact: Fact) -> None:
        item = self.traffic.items.get(fact.item)
        self.holds.read(fact, item)
        if item is not None:
            self.units.read(fact, item)

    def _steer(self, now: float) -> None:
        """Hold what is suspicious, and open again what is not."""
        for stream in self.holds.by_person:
            # What a person holds comes back as slowly as a new release.
            self.breaker.hold(stream, now)
        self.breaker.step(
            self.units, self._suspicion.suspects(self.units, self.holds, self.breaker, now), now
        )
        self._hold(now)

    def _hold(self, now: float) -> None:
        quotas = self.breaker.quotas(self.units, self.types, self.holds.queued(), now)
        if quotas != self._intake:
            self._intake = quotas
            self._note_intake(now)

    def _note_intake(self, at: float) -> None:
        probing = self.breaker.probes(POOLED)
        event = {"ev": "intake", "t": at, "quotas": self._intake, "probing": probing}
        self.own.append(event)
        self.traffic.observe(event)

    def _judgement(
        self,
        finding: Finding,
        sentence: str,
        now: float,
        weighed: Weighed | None = None,
        *,
        seen: Proof | None = None,
        reasons: Iterable[str] = (),
    ) -> Judgement:
        inputs = {
            "rule": "sequential",
            "now": now,
            "weighed": weighed.inputs() if weighed is not None else None,
            "proof": asdict(seen) if seen is not None else None,
            "reasons": list(reasons),
            "held": {"by_person": sorted(self.holds.by_person), "by_gate": dict(self.holds.quotas)},
            "parameters": dict(self._told),
        }
        return Judgement(finding=finding, sentence=sentence, inputs=inputs)


def judge_rows(
    rows: Iterable[Mapping[str, Any]],
    now: float,
    types: Collection[str],
    before: DayBefore | None = None,
    parameters: Parameters | None = None,
) -> Judgement:
    """The verdict from stored rows, in any order: the same that a gate gave that was told them as they came."""
    gate = Gate(types, before, parameters, slow_start=False)
    for row in rows:
        gate.observe(row)
    return gate.verdict(now)
