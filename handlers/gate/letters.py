"""What became of the dead letters that were sent back: counts by type and by the error of which they had died. Pure.

The evidence is a bet with a fixed start and without a forgiven window: a replay is sent when the drain wants it, so a
blip costs no letter, and there is no unknown onset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from handlers.gate.odds import odds, onset_weight
from handlers.gate.values import Baseline

ERRORS_MAX = 20
"""How many different new errors of a group are kept, the most common first."""


class End(StrEnum):
    """How a replay stands."""

    COMPLETED = "completed"
    KNOWN = "known"
    """It failed of an error that letters of its type had died of before. No news, and nothing against the release."""
    FAILED = "failed"
    """It failed of another error."""
    STUCK = "stuck"
    """Unfinished after the time limit, held by nobody."""
    WAITS = "waits"
    """It waits for a parent that did not come. That says nothing about the release."""
    OPEN = "open"
    """Unfinished, within the time limit or held."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """One letter that was sent back."""

    entity: str
    former: str
    """The fingerprint of the error of which it had died; empty without one."""
    end: End
    batch: int = 0
    error: str = ""
    """The fingerprint of its newest error."""
    kinds: tuple[str, ...] = ()
    """The code, and the beginning of the text, of that error."""


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One planned dead letter that was not sent back yet."""

    id: str
    entity: str
    former: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """The letters of one type that had died of one error."""

    entity: str
    former: str
    completed: int = 0
    known: int = 0
    failed: int = 0
    stuck: int = 0
    waits: int = 0
    open: int = 0
    left: int = 0
    """Not sent back, and still dead letters."""
    orphaned: int = 0
    """Of those left: they need a record whose own letters failed or are set aside."""
    errors: tuple[tuple[str, int], ...] = ()
    """The new errors with their number, the most common first."""
    kinds: tuple[str, ...] = ()
    """The codes, and the beginnings of the texts, of all errors, of letters in retry too."""

    def __post_init__(self) -> None:
        numbers = (self.completed, self.known, self.failed, self.stuck, self.waits, self.open, self.left)
        if min(*numbers, self.orphaned) < 0:
            raise ValueError(f"a count of {self.entity} is below zero")

    @property
    def again(self) -> int:
        """Letters that did not complete, whatever the reason: a bad sign for the others that had died of the same."""
        return self.known + self.failed + self.stuck + self.waits

    @property
    def news(self) -> int:
        """Letters that did not complete for a reason that the type had not met."""
        return self.failed + self.stuck + self.waits

    @property
    def against(self) -> int:
        """Letters that count against the release."""
        return self.failed + self.stuck

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Group:
        """From stored inputs."""
        errors = tuple((text, number) for text, number in stored["errors"])
        return cls(**{**stored, "errors": errors, "kinds": tuple(stored["kinds"])})


@dataclass(frozen=True, kw_only=True)
class DrainMeasurement:
    """The drain so far: one group for each type and former error."""

    groups: tuple[Group, ...] = ()
    source_down: str | None = None
    """Why nothing could be measured. The release is never blamed for it."""
    baseline: Baseline | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> DrainMeasurement:
        """From stored inputs."""
        return cls(
            groups=tuple(Group.from_json(group) for group in stored["groups"]),
            source_down=stored["source_down"],
            baseline=Baseline(**stored["baseline"]) if stored["baseline"] else None,
        )


def group_letters(
    replays: Iterable[Replay], left: Iterable[Letter] = (), orphaned: Iterable[Letter] = ()
) -> tuple[Group, ...]:
    """The counts of all letters, sorted. *orphaned* are among those that are *left*."""
    ends: dict[tuple[str, str], Counter[str]] = {}
    errors: dict[tuple[str, str], Counter[str]] = {}
    kinds: dict[tuple[str, str], set[str]] = {}
    for replay in replays:
        key = (replay.entity, replay.former)
        ends.setdefault(key, Counter())[replay.end] += 1
        kinds.setdefault(key, set()).update(replay.kinds)
        if replay.end is End.FAILED:
            errors.setdefault(key, Counter())[replay.error] += 1
    for name, letters in (("left", left), ("orphaned", orphaned)):
        for letter in letters:
            ends.setdefault((letter.entity, letter.former), Counter())[name] += 1
    return tuple(
        Group(
            entity=key[0],
            former=key[1],
            errors=most_common(errors.get(key, Counter()))[:ERRORS_MAX],
            kinds=tuple(sorted(kinds.get(key, set()) - {""})),
            **{str(name): number for name, number in counts.items()},
        )
        for key, counts in sorted(ends.items())
    )


def most_common(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The texts with their number, the most common first, equal ones by name."""
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def of_type(groups: Sequence[Group], entity: str) -> tuple[Group, ...]:
    """The groups of one type."""
    return tuple(group for group in groups if group.entity == entity)


def evidence(bad: int, good: int, q: float) -> float:
    """E(q): the odds against "at most q of the letters fail", with a fixed start and nothing forgiven."""
    return odds([bad + good], [bad], q) / onset_weight(0)
