"""How far the clock of another machine is from ours, with what the round trip leaves uncertain. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNIX_TIME = re.compile(r"^(\d+)(?:\.(\d+))?")
"""The output of `date +%s.%N`. Where `%N` is unknown the fraction is missing, or a letter."""


@dataclass(frozen=True, kw_only=True)
class Offset:
    """How far a clock is ahead of ours (negative: behind): certainly between two numbers of seconds."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The best estimate."""
        return (self.low + self.high) / 2

    def ahead_of(self, other: Offset) -> Offset:
        """How far this clock is ahead of another."""
        return Offset(low=self.low - other.high, high=self.high - other.low)

    def exceeds(self, limit: float) -> bool:
        """Whether the clocks differ by more than *limit* seconds for certain."""
        return self.low > limit or self.high < -limit


OURS = Offset(low=0.0, high=0.0)
"""The offset of our own clock."""


def offset(sent: float, received: float, first: tuple[float, float], last: tuple[float, float]) -> Offset:
    """The offset of a clock that was read twice between two readings of ours.

    *first* and *last* are the earliest and the latest time that each reading can mean. Only the way there and back is
    uncertain, however long the other side was busy in between.
    """
    return Offset(low=last[0] - received, high=first[1] - sent)


def reading(text: str) -> tuple[float, float]:
    """The earliest and the latest Unix time that the output of `date` can mean. Raises ValueError."""
    found = _UNIX_TIME.match(text.strip())
    if found is None:
        raise ValueError(f"not a Unix time: {text[:40]!r}")
    seconds, fraction = found.groups()
    if fraction is None:
        return float(seconds), float(seconds) + 1
    exact = float(f"{seconds}.{fraction}")
    return exact, exact
