"""Which dead letters healing may send back now, who sees to the others, and what a bad batch stops. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from handlers.gate.letters import Group
from handlers.gate.staged import DrainLimits, Stage, stages
from handlers.gate.values import Finding

ALL = "*"
"""Of a stop: all types, or all errors of a type."""
MISSING_PARENT = "missing_parent"
KILLED_ITS_WORKER = "lease_expired"


class Who(StrEnum):
    """Who sees to a dead letter."""

    HEALING = "healing"
    HEALING_LATER = "healing, later"
    PARENT = "its parent's arrival"
    NOBODY = "nobody: it is superseded"
    RELEASE = "a release, or `runbook drain`"
    PERSON = "a person"


class Newer(StrEnum):
    """What became of a newer event of the same record."""

    NONE = ""
    APPLIED = "applied"
    OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One dead letter, as healing looks at it."""

    id: str
    entity: str | None
    """None for a type without a handler; *raw_type* has its name."""
    raw_type: str
    key: str
    code: str
    former: str
    """The masked error of which it died."""
    is_hard: bool
    """Whether no retry of the same revision cures its error."""
    dead_seconds: float
    """Since it died, or since healing tried it last."""
    tries: int
    """How often healing has tried it."""
    newer: Newer = Newer.NONE


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Letters that healing leaves alone."""

    id: int
    entity: str
    former: str
    event_id: str | None
    left_seconds: float | None
    """Until it ends by itself; None until a person lifts it."""
    times: int
    by: str
    reason: str

    def is_for(self, letter: Candidate) -> bool:
        """Whether it stops this letter."""
        if self.event_id is not None:
            return self.event_id == letter.id
        kind = letter.entity or letter.raw_type
        return self.entity in (ALL, kind) and self.former in (ALL, letter.former)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Who sees to a dead letter, and why."""

    letter: Candidate
    who: Who
    reason: str


def standing(letter: Candidate, stops: Iterable[Stop], *, after_seconds: float, tries_max: int) -> Standing:
    """Who sees to this letter, and why: the first reason that holds."""
    mine = [stop for stop in stops if stop.is_for(letter)]
    quarantine = next((stop for stop in mine if stop.left_seconds is None), None)
    rest = max(mine, key=lambda stop: stop.left_seconds or 0, default=None)
    reasons = (
        (letter.entity is None, Who.PERSON, f"there is no handler for {letter.raw_type}"),
        (quarantine is not None, Who.PERSON, f"in quarantine {_said(quarantine)}"),
        (letter.newer is Newer.APPLIED, Who.NOBODY, "a newer event of its record was applied"),
        (letter.newer is Newer.OPEN, Who.NOBODY, "a newer event of its record is on its way"),
        (letter.code == MISSING_PARENT, Who.PARENT, "it waits for its parent, whose arrival wakes it"),
        (letter.code == KILLED_ITS_WORKER, Who.PERSON, "workers died of it, or lost it"),
        (letter.is_hard, Who.RELEASE, "no retry of the same revision cures its error"),
        (
            letter.tries >= tries_max,
            Who.PERSON,
            f"healing has tried it {letter.tries} of {tries_max} times",
        ),
        (
            letter.dead_seconds < after_seconds,
            Who.HEALING_LATER,
            f"dead for {_span(letter.dead_seconds)} of {_span(after_seconds)}",
        ),
        (rest is not None, Who.HEALING_LATER, f"it rests {_said(rest)}"),
        (True, Who.HEALING, f"try {letter.tries + 1} of {tries_max}"),
    )
    who, reason = next((who, reason) for holds, who, reason in reasons if holds)
    return Standing(letter=letter, who=who, reason=reason)


def stopped_by(finding: Finding, groups: Sequence[Group], limits: DrainLimits) -> tuple[tuple[str, str], ...]:
    """The types and errors that rest after this judgement of a round: pairs of type and error, each may be ALL.

    A breach stops all: too many letters fail of errors that their types had not met.
    """
    if finding is Finding.UNHEALTHY:
        return ((ALL, ALL),)
    found = stages(groups, limits)
    types = {group.entity for group in groups if found[(group.entity,)] is Stage.STOP}
    errors = {
        (group.entity, group.former)
        for group in groups
        if group.entity not in types and found[(group.entity, group.former)] is Stage.STOP
    }
    return (*((entity, ALL) for entity in sorted(types)), *sorted(errors))


def _said(stop: Stop | None) -> str:
    if stop is None:
        return ""
    if stop.left_seconds is None:
        return f"by {stop.by} (number {stop.id}): {stop.reason}"
    return f"for another {_span(stop.left_seconds)} (number {stop.id}): {stop.reason}"


def _span(seconds: float) -> str:
    """A time in one word or two."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
