"""How a run is shown: a table of ratios beside their targets, on the screen and in docs/performance.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from _place import Cost, Place

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- the last run of bench/queue_worker.py -->", "<!-- end of the run -->"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One comparison."""

    what: str
    against: str
    basis: str
    """What is compared: processor time a job (CPU), jobs a second (rate), memory (peak)."""
    ratio: float | None
    target: float
    at_most: bool = False
    note: str = ""

    @classmethod
    def skipped(cls, *, what: str, against: str, target: float, why: str) -> Line:
        return cls(what=what, against=against, basis="CPU", ratio=None, target=target, note=f"skipped: {why}")

    @classmethod
    def latency(cls, *, p50_ms: float, p99_ms: float) -> Line:
        return cls(
            what="one event on an idle queue",
            against="5 ms at the median",
            basis="wait",
            ratio=p50_ms / 5,
            target=1.0,
            at_most=True,
            note=f"p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms of at most 50",
        )

    @property
    def verdict(self) -> str:
        if self.ratio is None:
            return "skipped"
        return (
            "met"
            if (self.ratio <= self.target if self.at_most else self.ratio >= self.target)
            else "**short**"
        )

    def cells(self) -> tuple[str, ...]:
        sign = "≤" if self.at_most else "≥"
        ratio = "–" if self.ratio is None else f"{self.ratio:.2f}" if self.ratio < 10 else f"{self.ratio:.0f}"
        return self.what, self.against, self.basis, ratio, f"{sign} {self.target:g}", self.verdict, self.note


def table(lines: Sequence[Line]) -> str:
    """The comparisons as a Markdown table that can also be read as it stands."""
    return _markdown(
        ("what", "against", "by", "ratio", "target", "", "remark"), [line.cells() for line in lines]
    )


def costs(found: Mapping[str, Cost]) -> str:
    """What each run cost, as a Markdown table."""
    heads = ("run", "jobs", "server µs", "client µs", "jobs/s", "client MB")
    rows = [
        (
            name,
            f"{cost.jobs:,}",
            f"{cost.server_us:.0f}",
            f"{cost.client_us:.0f}",
            f"{cost.jobs / cost.wall_seconds:,.0f}",
            f"{cost.peak_mb:.0f}",
        )
        for name, cost in found.items()
    ]
    return _markdown(heads, rows)


def measured(name: str, cost: Cost) -> str:
    """One run in one line, for whoever waits."""
    return (
        f"{name:52} server {cost.server_us:7.1f} µs  client {cost.client_us:7.1f} µs"
        f"  {cost.jobs / cost.wall_seconds:7,.0f}/s  {cost.peak_mb:4.0f} MB"
    )


def conditions(place: Place, *, jobs: int, repeat: int) -> str:
    """Where the numbers come from, without naming the machine."""
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[1]
    disk = "a RAM disk" if place.on_ram else "an ordinary disk: there was no room on the RAM disk"
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GB, {platform.system()}, Python {platform.python_version()};"
        f" PostgreSQL with fsync, synchronous_commit and full_page_writes on, its data on {disk}."
        f" {jobs:,} products of 2 KB a run unless the table says otherwise, a CHECKPOINT before each,"
        f" the median of {repeat} runs (backlogs from 200,000 on once)."
        f" The load of the machine at the end was {load:.1f}."
    )


def keep(conditions: str, lines: str, costs: str) -> None:
    """Put the run into the page, in the place of the one before."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    PAGE.write_text(
        f"{before}{_BEGIN}\n\n{conditions}\n\n{lines}\n\n{costs}\n\n{_END}{after}", encoding="utf-8"
    )


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    shown = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in shown
    )
