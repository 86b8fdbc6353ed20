"""Counts by blocks of 30 seconds of admission: what the odds, the promotion and the type's standing are made of."""

from __future__ import annotations

from collections.abc import Sequence
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

    totals: dict[str, int] = field(default_factory=lambda: {"units": 0, "good": 0, "bad": 0})
    units: list[int] = field(default_factory=list)
    good: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)

    _worst: tuple[int, int, int] = (0, 0, 0)

    def reach(self, block: int) -> None:
        """Make the columns long enough for *block*."""
        for counts in (self.units, self.good, self.bad):
            extend(counts, block)

    def column(self, name: str) -> list[int]:
        """One of the three columns."""
        return {"units": self.units, "good": self.good, "bad": self.bad}[name]

    def count(self, name: str, block: int, number: int = 1) -> None:
        """Count units in the column *name*."""
        self.reach(block)
        self.column(name)[block] += number
        self.totals[name] += number

    def worst_window(self, blocks: int) -> tuple[int, int]:
        """The blocks in a row with the most failures; searched again only when something has failed."""
        if self._worst[0] != self.totals["bad"]:
            self._worst = (self.totals["bad"], *worst_window(self.bad, blocks))
        return self._worst[1:]


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


def worst_window(bad: Sequence[int], blocks: int) -> tuple[int, int]:
    """The first and the end of *blocks* in a row with the most failures; empty if nothing failed."""
    here = most = first = 0
    for block, failed in enumerate(bad):
        here += failed - (bad[block - blocks] if block >= blocks else 0)
        if here > most:
            most, first = here, max(block - blocks + 1, 0)
    return (first, first + blocks) if most else (0, 0)
