"""Words and checks that several rules share: shortened errors, the baseline, named errors, inputs for JSON. Pure."""

from __future__ import annotations

import re
from typing import Any

from handlers.gate.values import Baseline, Count


def is_of(name: str, error: str) -> bool:
    """Whether *error*, a code or the beginning of a text, is of the kind *name*.

    It is its code, its type, or its first words. What stands further on may be a value of a payload.
    """
    begins = re.compile(rf"(?:[\w.]*\.)?{re.escape(name)}(?!\w)")
    # After the type, once: `MissingGreenlet: greenlet_spawn has not been called`.
    type_, _, words = error.partition(": ")
    return begins.match(error) is not None or (
        re.fullmatch(r"[\w.]*[A-Z][\w.]*", type_) is not None and begins.match(words) is not None
    )


def before(baseline: Baseline | None) -> str:
    """The baseline in words. A rollback to a revision that was no better is right, but people should know it."""
    if baseline is None or baseline.completed + baseline.failed == 0:
        return ""
    count = Count(entity="", completed=baseline.completed, failed=baseline.failed)
    return f"; before the release {count.completed} of {count.outcomes} completed"


def shortened(text: str, length_max: int = 160) -> str:
    """*text* in one line of at most *length_max* characters."""
    line = " ".join(text.split())
    return line if len(line) <= length_max else line[: length_max - 1] + "…"


def lists(value: Any) -> Any:
    """*value* with lists instead of tuples, as in JSON, so that stored and new inputs are equal."""
    if isinstance(value, dict):
        return {key: lists(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [lists(item) for item in value]
    return value
