"""How long releases of an environment usually take, from those that succeeded. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from handlers.release.phase import Phase
from handlers.release.stored import known_fields


@dataclass(frozen=True, kw_only=True)
class Span:
    """The durations of one phase in runbook seconds, or of one step of a host in real seconds."""

    shortest: float
    usual: float
    """The median."""
    longest: float


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What the last releases took."""

    releases: int
    total: Span
    """From the start to the end; the time that people took to approve does not count."""
    phases: dict[str, Span] = field(default_factory=dict)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Usual | None:
        """From the ledger; None when it has another form."""
        try:
            spans = {name: Span(**known_fields(Span, span)) for name, span in stored["phases"].items()}
            total = Span(**known_fields(Span, stored["total"]))
            return cls(releases=int(stored["releases"]), total=total, phases=spans)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


@dataclass(frozen=True, kw_only=True)
class UsualSteps:
    """What each step took on one host, and a whole rollback, in real seconds."""

    steps: dict[str, Span] = field(default_factory=dict)
    """By `step_key`: `deploying/switch`."""
    rollback: Span | None = None

    def __bool__(self) -> bool:
        return bool(self.steps or self.rollback)

    def seconds(self, phase: Phase, step: str) -> float | None:
        """The median of a step in a phase; None without an earlier one."""
        span = self.steps.get(step_key(phase, step))
        return span.usual if span else None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> UsualSteps:
        """From the ledger; empty when it has another form."""
        try:
            steps = {name: Span(**known_fields(Span, span)) for name, span in stored["steps"].items()}
            rollback = stored.get("rollback")
            return cls(steps=steps, rollback=Span(**known_fields(Span, rollback)) if rollback else None)
        except (KeyError, TypeError, ValueError, AttributeError):
            return cls()


def step_key(phase: Phase, step: str) -> str:
    """The name of a step in a phase: `probe` right after a switch is another one than `probe` of the whole fleet."""
    return f"{phase}/{step}"


def usual_of(durations: Iterable[Mapping[Phase, float]]) -> Usual | None:
    """The usual durations of releases, each given as seconds by phase. None without a release."""
    known = [each for each in durations if each]
    if not known:
        return None
    phases = dict.fromkeys(phase for each in known for phase in each)
    return Usual(
        releases=len(known),
        total=span_of([sum(each.values()) for each in known]),
        phases={
            phase.value: span_of([each[phase] for each in known if phase in each])
            for phase in phases
        },
    )  # fmt: skip


def span_of(seconds: list[float]) -> Span:
    """The shortest, the median and the longest of durations."""
    return Span(
        shortest=round(min(seconds), 1), usual=round(median(seconds), 1), longest=round(max(seconds), 1)
    )
