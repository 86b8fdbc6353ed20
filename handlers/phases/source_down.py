"""A source of measurements that is down: it is no pass and no breach, and after a while a person is paged. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from handlers.status.wrapping import age


@dataclass(frozen=True, kw_only=True)
class Down:
    """A source that cannot be read: since when, why, and whether a person was paged for it."""

    since: datetime
    why: str
    paged: bool = False

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {"since": self.since.isoformat(), "why": self.why, "paged": self.paged}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Down:
        """From what `as_json` has made of it."""
        since = datetime.fromisoformat(stored["since"])
        return cls(since=since, why=stored["why"], paged=bool(stored["paged"]))


def to_page(source: str, why: str, *, down_seconds: float, paged: bool, limit_seconds: float) -> str | None:
    """The sentence to page for a source that is down for *down_seconds*; None before the deadline, and after the page.

    Both times are of one kind: runbook seconds.
    """
    if paged or down_seconds < limit_seconds:
        return None
    return f"{source} could not be read for {age(down_seconds)}: {why}"


def after(down: Mapping[str, Down], problems: Mapping[str, str], at: datetime) -> dict[str, Down]:
    """The sources that are down after a look with these *problems*: the others are up again."""
    return {
        source: replace(down[source], why=why) if source in down else Down(since=at, why=why)
        for source, why in problems.items()
    }


def due(
    down: Mapping[str, Down], at: datetime, *, limit_seconds: float, speed: float
) -> tuple[dict[str, Down], list[tuple[str, str]]]:
    """The same sources, with those paged that are due; and their names and sentences. The limit: runbook seconds."""
    states, pages = dict(down), []
    for source, state in down.items():
        sentence = to_page(
            source,
            state.why,
            down_seconds=(at - state.since).total_seconds() * speed,
            paged=state.paged,
            limit_seconds=limit_seconds,
        )
        if sentence is not None:
            states[source] = replace(state, paged=True)
            pages.append((source, sentence))
    return states, pages
