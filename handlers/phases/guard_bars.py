"""What the bars of a guard's checks lead to: which take the release back, and of which a person is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from handlers.measurements.measurement import MACHINE_CHECKS, Action, Measurement, State
from handlers.phases import source_down

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


def pages(checks: Sequence[Measured], *, source_down_seconds: float, speed: float) -> Iterable[str]:
    """What a person should hear of after the newest check, each once: a broken bar, a source that is down too long."""
    newest = checks[-1]
    for each in newest.measurements:
        if each.name in TOLD_ELSEWHERE:
            continue
        if each.state is State.BROKEN and _in_a_row(checks, each, State.BROKEN) == LOOKS_MIN:
            yield f"{each.key}: {each.sentence}"
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
                yield sentence


def in_words(measurements: Iterable[Measurement]) -> str:
    """What is not good, for the sentence of a check; empty when all is."""
    found = list(measurements)
    broken = [f"{each.key}: {each.sentence}" for each in found if each.state is State.BROKEN]
    down = [each.key for each in found if each.state is State.SOURCE_DOWN]
    parts = [f"broken: {'; '.join(broken)}"] if broken else []
    parts += [f"not read: {', '.join(down)}"] if down else []
    return ". ".join(parts)


def _in_a_row(checks: Sequence[Measured], measurement: Measurement, state: State) -> int:
    """How many checks in a row, up to the newest, found this state."""
    count = 0
    for check in reversed(checks):
        if check.states().get(measurement.key) is not state:
            break
        count += 1
    return count
