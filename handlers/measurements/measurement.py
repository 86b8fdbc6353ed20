"""One measurement of a check: the value, its bar, how they compare, and the sentence about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from handlers.environment.bars import CHECKS
from handlers.environment.model import Environment

MACHINE_CHECKS = frozenset({"load", "memory", "disk", "connections"})
"""The checks whose bars are in [machine]."""
_WHY_MAX = 160


class State(StrEnum):
    """How a measurement compares with its bar."""

    GOOD = "good"
    """It keeps its bar."""
    BROKEN = "broken"
    """It does not."""
    SHOWN = "shown"
    """It has no bar, or the bar does not apply now."""
    SOURCE_DOWN = "source down"
    """It could not be read: neither good nor broken."""
    NO_DATA = "no data"
    """There is too little to judge."""


class Action(StrEnum):
    """What a broken bar does to a release."""

    SHOW = "show"
    """It is shown, and does nothing."""
    HOLD = "hold"
    """A release is held."""
    ROLL_BACK = "roll_back"
    """A release goes back."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The result of one check at one moment."""

    name: str
    """One of CHECKS."""
    subject: str = ""
    """The table or host it is about; empty for the whole environment."""
    value: float | None = None
    """What was measured; null when nothing was."""
    unit: str = ""
    """Of the value and the bar."""
    bar: float | None = None
    """What it is compared with; null: nothing."""
    state: State
    """How the two compare."""
    action: Action = Action.SHOW
    """What a broken bar does."""
    sentence: str
    """With its numbers."""

    @property
    def key(self) -> str:
        """What tells it from the others of one moment."""
        return f"{self.name} {self.subject}".rstrip()

    def as_json(self) -> dict[str, Any]:
        """For the ledger."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """From the ledger. A key of another version is ignored."""
        known = {name: value for name, value in stored.items() if name in cls.__dataclass_fields__}
        return cls(
            **known | {"state": State(stored["state"]), "action": Action(stored.get("action", Action.SHOW))}
        )


def compared(
    name: str,
    value: float,
    bar: float | None,
    unit: str,
    sentence: str,
    *,
    subject: str = "",
    good_above: bool = False,
) -> Measurement:
    """A measurement that is broken above its bar, or below it where *good_above*. The bar ends its sentence."""
    if bar is None:
        state = State.SHOWN
    else:
        is_broken = value < bar if good_above else value > bar
        state = State.BROKEN if is_broken else State.GOOD
        sentence = f"{sentence}; the bar is {bar:g}{f' {unit}' if unit else ''}"
    return Measurement(
        name=name, subject=subject, value=value, unit=unit, bar=bar, state=state, sentence=sentence
    )


def no_data(
    name: str, sentence: str, *, bar: float | None = None, unit: str = "", subject: str = ""
) -> Measurement:
    """A measurement of too little to judge."""
    return Measurement(name=name, subject=subject, bar=bar, unit=unit, state=State.NO_DATA, sentence=sentence)


def source_down(name: str, why: object, *, subject: str = "") -> Measurement:
    """A measurement that could not be read, and why."""
    flat = " ".join(str(why).split())
    short = flat if len(flat) <= _WHY_MAX else f"{flat[: _WHY_MAX - 4]} ..."
    return Measurement(
        name=name, subject=subject, state=State.SOURCE_DOWN, sentence=f"it could not be read: {short}"
    )


def ordered(environment: Environment, found: Iterable[Measurement]) -> list[Measurement]:
    """The measurements in the order of CHECKS, each with what its broken bar does in this environment."""
    acting = [replace(each, action=action_of(environment, each.name)) for each in found]
    return sorted(acting, key=lambda each: CHECKS.index(each.name))


def action_of(environment: Environment, name: str) -> Action:
    """What the broken bar of a check does. machine.action = "hold" is for all bars of [machine]."""
    action = Action(environment.bars.action(name))
    if action is Action.SHOW and name in MACHINE_CHECKS and environment.machine.action == "hold":
        return Action.HOLD
    return action
