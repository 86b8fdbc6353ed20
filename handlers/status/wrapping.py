"""Sentences on lines of a terminal, and durations in words. Pure."""

from __future__ import annotations

import textwrap
import unicodedata

LABEL_WIDTH = 9
"""Columns of the label, so that the sentences are aligned."""


def labelled(label: str, sentence: str, width: int) -> list[str]:
    """A sentence after its label; no line where there is none."""
    return wrapped(f"{label:<{LABEL_WIDTH}}", sentence, width, indent=LABEL_WIDTH) if sentence else []


def wrapped(head: str, sentence: str, width: int, *, indent: int = LABEL_WIDTH) -> list[str]:
    """*head* and *sentence*, wrapped at *width* columns."""
    gap = " " if head and not head.endswith(" ") else ""
    first = f"{head}{gap}{plain(sentence)}".rstrip()
    # A number and its percent sign stay on one line.
    broken = textwrap.wrap(
        first.replace(" %", "\u00a0%"),
        width=max(width, indent + 10),
        subsequent_indent=" " * indent,
        drop_whitespace=True,
        replace_whitespace=False,
        # A path or an option in a command stays whole.
        break_on_hyphens=False,
    )
    return [line.replace("\u00a0%", " %") for line in broken] or [first[:width]]


def plain(sentence: str) -> str:
    """The sentence without control characters and line breaks: it may contain text from hosts and payloads."""
    flat = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in sentence)
    return flat.strip()


def age(seconds: float) -> str:
    """A duration in the largest unit that gives at least 2: `119 s`, `2 min`, `47 h`, `2 days`."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def lasted(seconds: float) -> str:
    """A duration to compare with another: `3.1 s`, `41 s`, `1 min 33 s`, `31 min`, `1 h 5 min`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def beside_usual(seconds: float | None, usual: float | None, *, unit: str = "") -> str:
    """A duration beside the usual one: `9.0 s (usual 8.1 s)`. Each may be unknown; *unit* follows the duration."""
    if seconds is None:
        return f"usually {lasted(usual)}" if usual is not None else ""
    beside = f" (usual {lasted(usual)})" if usual is not None else ""
    return f"{lasted(seconds)}{unit}{beside}"
