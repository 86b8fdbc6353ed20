"""What the bars of a guard's checks lead to: which take the release back, and of which a person is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from handlers.measurements.measurement import MACHINE_CHECKS, Action, Measurement, State
from handlers.phases import source_down
from handlers.phases.around_pages import Page, bar_broken, bar_whole, source_back
from handlers.release.topic import Topic

LOOKS_MIN = 2
"""A bar acts when it is broken at so many checks in a row: one peak is nothing."""
TOLD_ELSEWHERE = MACHINE_CHECKS | {"new_signatures"}
"""The look around the release tells people of these."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one check has measured."""

    at: datetime
    measurements: tuple[Measurement, ...]

    def states(self) -> dict[str, State]:
        """The state of each measurement."""
        return {each.key: each.state for each in self.measurements}


def taking_back(checks: Sequence[Measured]) -> list[Measurement]:
    """The measurements of the newest check that take the release back: broken at two checks in a row.

    *checks* are those that were taken, oldest first. What could not be read, and too little data, is never broken.
    """
    return [
        each
        for each in checks[-1].measurements
        if each.action is Action.ROLL_BACK and _in_a_row(checks, each, State.BROKEN) >= LOOKS_MIN
    ]


def pages(checks: Sequence[Measured], *, source_down_seconds: float, speed: float) -> Iterator[Page]:
    """What a person should hear of after the newest check, each once: a broken bar, a source that is down too long.

    And that it is over.
    """
    newest = checks[-1]
    for each in newest.measurements:
        if each.name in TOLD_ELSEWHERE:
            continue
        if each.state is State.BROKEN and _in_a_row(checks, each, State.BROKEN) == LOOKS_MIN:
            yield bar_broken(each.key, f"{each.key}: {each.sentence}", each.action)
        if each.state is not State.SOURCE_DOWN:
            yield from _over(checks[:-1], each)
        if each.state is State.SOURCE_DOWN:
            row = _in_a_row(checks, each, State.SOURCE_DOWN)
            since = checks[-row].at
            down = [(check.at - since).total_seconds() * speed for check in checks[-row:]]
            sentence = source_down.to_page(
                each.key,
                each.sentence,
                down_seconds=down[-1],
                paged=row > 1 and down[-2] >= source_down_seconds,
                limit_seconds=source_down_seconds,
            )
            if sentence is not None:
                yield Page(event=Topic.SOURCE_DOWN, source=each.key, sentence=sentence)


def in_words(measurements: Iterable[Measurement]) -> str:
    """What is not good, for the sentence of a check; empty when all is."""
    found = list(measurements)
    broken = [f"{each.key}: {each.sentence}" for each in found if each.state is State.BROKEN]
    down = [each.key for each in found if each.state is State.SOURCE_DOWN]
    parts = [f"broken: {'; '.join(broken)}"] if broken else []
    parts += [f"not read: {', '.join(down)}"] if down else []
    return ". ".join(parts)


def _over(before: Sequence[Measured], now: Measurement) -> Iterator[Page]:
    """That a trouble of the checks before is over. Whoever tells it knows whether the trouble was told."""
    if not before:
        return
    if now.state is not State.BROKEN and _in_a_row(before, now, State.BROKEN) >= LOOKS_MIN:
        yield bar_whole(now.key)
    if _in_a_row(before, now, State.SOURCE_DOWN) > 1:
        yield source_back(now.key)


def _in_a_row(checks: Sequence[Measured], measurement: Measurement, state: State) -> int:
    """How many checks in a row, up to the newest, found this state."""
    count = 0
    for check in reversed(checks):
        if check.states().get(measurement.key) is not state:
            break
        count += 1
    return count
