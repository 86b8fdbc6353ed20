"""Counts by blocks of 30 seconds of admission: what the odds, the promotion and the type's standing are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

SOFT, HARD, WAITS = "soft", "hard", "waits"
TRACKS = (SOFT, HARD, WAITS)
"""Any failure; what no blip explains; a wait for a parent that does not end."""


@dataclass
class Table:
    """The blocks of one stream: its units, and the bad ones of each track."""

    units: list[int] = field(default_factory=list)
    bad: dict[str, list[int]] = field(default_factory=lambda: {track: [] for track in TRACKS})
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TRACKS, 0))
    """All bad ones of a track. While it does not grow, the odds cannot grow either."""

    def reach(self, block: int) -> None:
        """Make the table long enough for *block*."""
        for counts in (self.units, *self.bad.values()):
            extend(counts, block)

    def add(self, block: int) -> None:
        """Count a unit."""
        self.reach(block)
        self.units[block] += 1

    def mark(self, track: str, block: int) -> None:
        """Count a failure of a unit."""
        self.bad[track][block] += 1
        self.failures[track] += 1


@dataclass
class Distinct:
    """The units of the promotion by block: admitted, completed in time, and failed."""

    units: list[int] = field(default_factory=list)
    good: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)

    def reach(self, block: int) -> None:
        """Make the columns long enough for *block*."""
        for counts in (self.units, self.good, self.bad):
            extend(counts, block)


@dataclass
class Standing:
    """How the records of one type ended when they last came. Known errors are left out."""

    failed: set[str] = field(default_factory=set)
    completed: set[str] = field(default_factory=set)
    failures: int = 0
    successes: int = 0

    def note(self, key: str, *, good: bool) -> None:
        """Note the end of one item of the record *key*."""
        self.failures += not good
        self.successes += good
        (self.failed if good else self.completed).discard(key)
        (self.completed if good else self.failed).add(key)


def extend(counts: list[int], block: int) -> None:
    """Fill *counts* with zeros until it has *block*."""
    missing = block + 1 - len(counts)
    if missing > 0:
        counts.extend([0] * missing)
