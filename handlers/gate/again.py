"""Judging again from stored looks: with the same numbers as a proof, with others to ask what would have happened.

A look is stored with its inputs: those of `rules` whole, those of the sequential gate as the facts since the last
look. So looks are judged again in their order, by one `Again` for a release.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from handlers.gate import rules
from handlers.gate.day_before import DayBefore
from handlers.gate.parameters import Parameters
from handlers.gate.sequential import Gate
from handlers.gate.values import Finding, Judgement

SEQUENTIAL = "sequential"


class CannotJudgeError(ValueError):
    """A look lacks what its decision was made of. The text says which look, and what."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One look from the ledger."""

    number: int
    """Its place among the looks of the release, from 1 on."""
    finding: Finding
    sentence: str
    inputs: Mapping[str, Any]

    @property
    def rule(self) -> str:
        """The rule that judged it."""
        return str(self.inputs.get("rule", "unknown"))

    @property
    def now(self) -> float | None:
        """Runbook seconds since the switch; None for the rules that follow dead letters."""
        now = self.inputs.get("now")
        return float(now) if now is not None else None


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Other numbers for the question what would have happened. None leaves the stored one."""

    ok: float | None = None
    tolerable: float | None = None
    bad: float | None = None
    alpha: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """Those that differ from what is stored, or may."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def parameters(self, stored: Parameters) -> Parameters:
        """The numbers of the sequential gate. Raises ValueError if they contradict each other."""
        for name, value in self.given.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a number, not {value}")
        ok, tolerable, bad, alpha = (
            self.given.get(name, getattr(stored, name)) for name in ("ok", "tolerable", "bad", "alpha")
        )
        try:
            return replace(stored, ok=ok, tolerable=tolerable, bad=bad, alpha=alpha)
        except ValueError as error:
            raise ValueError(
                f"{error}; they are bad {bad:g}, tolerable {tolerable:g}, ok {ok:g}, alpha {alpha:g}"
            ) from error

    def limits(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The thresholds of the other rules: rates in percent, or the failing shares of the drain."""
        changed = {
            "good_percent": None if self.ok is None else 100 * self.ok,
            "roll_back_percent": None if self.bad is None else 100 * self.bad,
            "q": None if self.ok is None else 1 - self.ok,
            "q_mid": None if self.tolerable is None else 1 - self.tolerable,
            "alpha": self.alpha,
        }
        return {
            **stored,
            **{name: value for name, value in changed.items() if value is not None and name in stored},
        }


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A stored look, and how it is judged now."""

    stored: Stored
    judgement: Judgement

    @property
    def is_same(self) -> bool:
        """Whether finding and sentence are the stored ones."""
        return (self.judgement.finding, self.judgement.sentence) == (
            self.stored.finding,
            self.stored.sentence,
        )

    @property
    def ends(self) -> bool:
        """Whether a release ends with it: only a breach rolls back, and only a watch that is over passes."""
        if self.judgement.finding is Finding.UNHEALTHY:
            return True
        return self.stored.rule == SEQUENTIAL and self.judgement.finding is Finding.HEALTHY


class Again:
    """Judges the looks of one release again, in their order."""

    def __init__(self, numbers: Numbers | None = None) -> None:
        self.numbers = numbers or Numbers()
        self.gate: Gate | None = None
        """The sequential gate after the newest look; None before its first one."""

    def judge(self, look: Stored) -> Replayed:
        """Judge the next look. Raises CannotJudgeError if its inputs are incomplete, ValueError for bad numbers."""
        if "begin" in look.inputs:
            # Before the try: numbers that contradict each other are no fault of the look.
            self.gate = self._begin(look)
        try:
            judgement = self._sequential(look) if look.rule == SEQUENTIAL else self._rule(look)
        except CannotJudgeError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise _cannot(look, error) from error
        return Replayed(stored=look, judgement=judgement)

    def _begin(self, look: Stored) -> Gate:
        try:
            begin = look.inputs["begin"]
            known = {each.name for each in fields(Parameters)}
            stored = Parameters(**{k: v for k, v in begin["parameters"].items() if k in known})
            before, types = DayBefore.from_json(begin["before"]), list(begin["types"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _cannot(look, error) from error
        return Gate(types, before, self.numbers.parameters(stored), slow_start=False)

    def _sequential(self, look: Stored) -> Judgement:
        if self.gate is None:
            raise CannotJudgeError(
                f"look {look.number} cannot be judged again: the first look of the release is not stored"
            )
        if "pruned" in look.inputs:
            raise CannotJudgeError(
                f"look {look.number} cannot be judged again: what the gate was told of single events was dropped by"
                f" `runbook db prune` on {look.inputs['pruned']}"
            )
        for fact in look.inputs["facts"]:
            self.gate.observe(fact)
        left = look.inputs.get("left")
        return self.gate.verdict(
            float(look.inputs["now"]),
            look.inputs.get("source_down"),
            left=float(left) if left is not None else None,
        )

    def _rule(self, look: Stored) -> Judgement:
        inputs = {name: look.inputs[name] for name in ("rule", "seen", "limits")}
        return rules.judge(**{**inputs, "limits": self.numbers.limits(inputs["limits"])})


def replay(looks: Iterable[Stored], numbers: Numbers | None = None) -> Iterator[Replayed]:
    """Judge every look again. Raises CannotJudgeError at one that lacks its inputs, ValueError for bad numbers."""
    again = Again(numbers)
    for look in looks:
        yield again.judge(look)


def close(one: float, other: float) -> bool:
    """Whether two computed numbers are the same. Sums may differ in the last digits across machines."""
    return math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-12)


def _cannot(look: Stored, error: Exception) -> CannotJudgeError:
    what = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
    return CannotJudgeError(f"look {look.number} cannot be judged again: {what}")
