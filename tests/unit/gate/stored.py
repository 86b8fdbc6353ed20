"""Looks as the ledger stores them, from a gate that a test drives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from handlers.gate.again import Stored
from handlers.gate.day_before import DayBefore
from handlers.gate.values import Finding, Judgement
from tests.unit.gate.told import TYPES, Told


class Looks:
    """A gate with what would be in the ledger of its looks, after a round trip through JSON."""

    def __init__(self, before: DayBefore | None = None, **parameters: Any) -> None:
        self.told = Told(before, slow_start=True, **parameters)
        self.stored: list[Stored] = []
        self._events = 0
        self._begin: dict[str, Any] | None = {
            "types": list(TYPES),
            "before": (before or DayBefore()).as_json(),
            "parameters": asdict(self.told.gate.parameters),
        }

    def look(self, now: float, *, source_down: str | None = None, left: float | None = None) -> Judgement:
        """Decide, and store the look as the product does."""
        gate = self.told.gate
        left = gate.parameters.watch_s - now if left is None else left
        judgement = gate.decide(now, source_down, left=left)
        facts = [*self.told.events[self._events :], *gate.own]
        self._events = len(self.told.events)
        gate.own.clear()
        inputs = judgement.inputs | {"left": left, "source_down": source_down, "facts": facts}
        if self._begin is not None:
            inputs, self._begin = inputs | {"begin": self._begin}, None
        self.add(judgement.finding, judgement.sentence, inputs)
        return judgement

    def add(self, finding: Finding, sentence: str, inputs: dict[str, Any]) -> None:
        """A look of any rule."""
        plain = json.loads(json.dumps(inputs))
        self.stored.append(
            Stored(number=len(self.stored) + 1, finding=finding, sentence=sentence, inputs=plain)
        )

    def until(self, end: float, tell: Callable[[float], None], every: float = 10.0) -> Judgement:
        """Look every ten seconds until *end* or a decision; *tell* says what happens in the ten seconds before."""
        now = every
        while True:
            tell(now - every)
            judgement = self.look(now)
            if now >= end or judgement.finding in (Finding.UNHEALTHY, Finding.HEALTHY):
                return judgement
            now += every


def failing(looks: Looks, *, from_: float = 300.0, hard: bool = False) -> Callable[[float], None]:
    """One new record every five seconds: they complete, and from *from_* on two of three die."""

    def tell(start: float) -> None:
        for at in (start + 1, start + 6):
            if at >= from_ and int(at) % 3:
                looks.told.dead(at, "PRODUCT", hard=hard, took=1.0)
            else:
                looks.told.done(at, "PRODUCT", took=1.0)

    return tell


def healthy(looks: Looks) -> Callable[[float], None]:
    """One new record every five seconds, of two types; one in forty dies."""

    def tell(start: float) -> None:
        for at, entity in ((start + 1, "PRODUCT"), (start + 6, "INVOICE")):
            if int(at) % 201 == 1:
                looks.told.dead(at, entity, took=1.0)
            else:
                looks.told.done(at, entity, took=1.0)

    return tell
