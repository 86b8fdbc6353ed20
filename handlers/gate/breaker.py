"""The breaker: holds the intake of a suspicious stream to a few probes, and opens it again step by step.

Waiting out a possible blip then costs a few items instead of minutes of traffic. Every release begins held, and what a
person held comes back the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from handlers.gate.courses import Course
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.units import Units

START, FAILURE, SUCCESS = -0.86, 1.39, -0.17
"""The score of a stream that opens: log odds of a failing share of 20 % against 5 %."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """How one stream is held."""

    since: float
    quota: int
    opening: bool = False
    """Whether its quota grows; else it is at its probes."""
    grown: float = 0.0
    clean: int = 0
    """Probes that completed, one after the other."""
    score: float = START


@dataclass
class Breaker:
    """Which streams are held. It is fed at each look, and answers the quotas."""

    parameters: Parameters
    held: dict[str, Held] = field(default_factory=dict)
    closed: dict[str, float] = field(default_factory=dict)
    """When the last hold of a stream ended. Suspicion begins anew there."""

    def hold(self, stream: str, at: float) -> None:
        """Hold *stream* to its probes."""
        self.held[stream] = Held(since=at, quota=self.parameters.probe)

    def probes(self, stream: str) -> bool:
        """Whether the stream is held to its probes."""
        return stream in self.held and not self.held[stream].opening

    def since(self, stream: str) -> float:
        """From when on suspicion counts."""
        return self.held[stream].since if stream in self.held else self.closed.get(stream, 0.0)

    def step(self, units: Units, suspects: Collection[str], now: float) -> None:
        """One look: what has ended since the last one, and who is suspicious."""
        new, units.outcomes = units.outcomes, []
        for stream, held in list(self.held.items()):
            for course in new:
                if stream in (POOLED, course.entity) and course.admitted >= held.since:
                    held = _counted(held, course, news=units.is_news(course))
            self._move(stream, held, stream in suspects, now)
        for stream in suspects:
            if stream not in self.held:
                self.hold(stream, now)

    def _move(self, stream: str, held: Held, suspect: bool, now: float) -> None:
        p = self.parameters
        if not held.opening:
            if held.clean >= p.clean_probes or now - held.since >= p.hold_max_s:
                held = replace(held, opening=True, quota=2 * p.probe, grown=now, score=START)
            self.held[stream] = held
        elif held.score > 1 or suspect:
            self.hold(stream, now)
        elif now - held.grown >= p.tick_s - 1e-6:
            if held.quota * 2 > p.quota_max:
                del self.held[stream]
                self.closed[stream] = now
            else:
                self.held[stream] = replace(held, quota=held.quota * 2, grown=now)
        else:
            self.held[stream] = held

    def quotas(
        self, units: Units, types: Collection[str], queued: Sequence[str], now: float
    ) -> dict[str, int]:
        """How many items of each held stream may be admitted in the next ten seconds.

        *queued* are the types of what waits to be admitted, the oldest first.
        """
        p = self.parameters
        quotas = {}
        for stream, held in self.held.items():
            quotas[stream] = held.quota
            if not held.opening:
                open_ = [
                    course
                    for course in units.open.values()
                    if stream in (POOLED, course.entity) and _unanswered(course, p, now)
                ]
                if stream == POOLED:
                    open_ = [course for course in open_ if course.waiting_since is None]
                waits = any(course.waiting_since is not None for course in open_)
                unanswered = len({course.key for course in open_}) if waits else len(open_)
                quotas[stream] = max(min(held.quota, (p.probe_waiting if waits else p.probe) - unanswered), 0)
        if POOLED in quotas and len(quotas) > 1:
            # It would hide the quotas of the held types. So each type gets one.
            pooled = quotas.pop(POOLED)
            if self.held[POOLED].opening:
                return dict.fromkeys(types, pooled) | quotas
            shared = dict.fromkeys(types, 0)
            for entity in queued:
                # A type without a handler is buried, and has no limit.
                if pooled > 0 and entity in shared and shared[entity] < quotas.get(entity, pooled):
                    shared[entity] += 1
                    pooled -= 1
            return shared
        return quotas


def _counted(held: Held, course: Course, *, news: bool) -> Held:
    if course.good:
        return replace(held, clean=held.clean + 1, score=max(held.score + SUCCESS, START))
    if not news:
        return held
    return replace(held, clean=0, score=held.score + FAILURE)


def _unanswered(course: Course, parameters: Parameters, now: float) -> bool:
    if course.back:
        # Nobody has it: while it counted, nobody could take it.
        return False
    if course.waiting_since is not None:
        return True
    return course.hard_at is None and now - course.admitted < parameters.stuck_s
