"""The keys of an environment file about the checks: their bars, and which of them act."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from handlers.environment.around import Percent
from handlers.environment.section import Seconds, Section

CheckAction = Literal["show", "hold", "roll_back"]

CHECKS = (
    "success_1h",
    "success_24h",
    "failing_1h",
    "failing_24h",
    "dead_letters_1h",
    "dead_letters_24h",
    "error_rise",
    "webhook_seconds",
    "throughput",
    "queue_depth",
    "oldest",
    "stuck",
    "silent_workers",
    "freshness",
    "new_signatures",
    "load",
    "memory",
    "disk",
    "connections",
)
"""The names of the checks, as `hold` and `roll_back` name them, in the order in which people read them."""


class Bars(Section):
    """The bars of the checks. One that is None is shown and not judged; those of the machines are in [machine]."""

    success_percent: Percent | None = 95
    """Broken below it: the events that completed, of those that ended."""
    failing_percent: Percent | None = 5
    """Broken above it: the events that failed, or wait for another attempt after an error, of those taken."""
    dead_letters: Annotated[int, Field(ge=0)] | None = 0
    """Broken above it."""
    events_min: Annotated[int, Field(ge=1)] = 20
    """Of fewer events no share is judged."""
    error_rise_points: Percent | None = 5
    """Broken above it: by so many percentage points more events fail than before, if that is more than chance."""
    webhook_seconds: Seconds | None = 5
    """Broken above it: nineteen of twenty events take at most this long from claim to completion."""
    events_a_minute: Annotated[float, Field(gt=0)] | None = 100
    """Broken below it, while events wait."""
    queue_depth: Annotated[int, Field(ge=0)] | None = None
    """Broken above it: the events that are pending, in processing or in retry."""
    oldest_seconds: Seconds | None = 300
    """Broken above it: the time that the oldest due event waits."""
    stuck_events: Annotated[int, Field(ge=0)] | None = 0
    silent_workers: Annotated[int, Field(ge=0)] | None = 0
    freshness_seconds: Annotated[float, Field(gt=0)] | None = None
    """Broken above it: the age of the newest row of a table of the ERP."""
    freshness_tables: tuple[str, ...] = ()
    """The tables that `freshness_seconds` is for; empty: all. Some are rarely changed."""
    new_signatures: Annotated[int, Field(ge=0)] | None = 0
    """Broken above it: the kinds of errors in the logs that are new."""
    hold: tuple[str, ...] = ()
    """The checks whose broken bar holds a release."""
    roll_back: tuple[str, ...] = ()
    """The checks whose broken bar rolls a release back."""

    @model_validator(mode="after")
    def _names_checks(self) -> Self:
        for key in ("hold", "roll_back"):
            for name in getattr(self, key):
                if name not in CHECKS:
                    raise ValueError(f"{key}: there is no check {name!r}{_meant(name)}")
        if both := sorted(set(self.hold) & set(self.roll_back)):
            raise ValueError(f"{both[0]!r} is in hold and in roll_back: name it in one of them")
        return self

    def action(self, name: str) -> CheckAction:
        """What a broken bar of the check *name* does."""
        return "roll_back" if name in self.roll_back else "hold" if name in self.hold else "show"


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name, CHECKS, n=1)
    return f"; is {close[0]!r} meant?" if close else f"; there are {', '.join(CHECKS)}"
