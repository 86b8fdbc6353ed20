"""The rules of other tools, as documented, fed with the end of each item once, which favours them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Look = tuple[str, str, Any]
CONTINUE: Look = ("CONTINUE", "", None)


class Rule:
    """A rule that looks at success rates in windows. None of them holds the intake."""

    every = 60.0

    def __init__(self, header: Mapping[str, Any]) -> None:
        self.watch = float(header["watch_s"])
        self.ends: list[tuple[float, bool]] = []

    def observe(self, event: Mapping[str, Any]) -> None:
        """Count the ends, nothing else."""
        if event["ev"] in {"done", "dead"}:
            self.ends.append((event["t"], event["ev"] == "done"))

    def decide(self, now: float) -> Look:
        """Look when it is time to."""
        return self.look(now) if now % self.every == 0 else CONTINUE

    def look(self, now: float) -> Look:
        """What one look decides."""
        raise NotImplementedError

    def rate(self, now: float, seconds: float) -> float | None:
        """The success rate of the last seconds; None if nothing ended."""
        ends = [good for at, good in self.ends if at >= now - seconds]
        return sum(ends) / len(ends) if ends else None


class Runbook(Rule):
    """The source runbook, counted since the release: below 80 % at a look rolls back, 95 % at the end passes."""

    every = 300.0

    def look(self, now: float) -> Look:
        rate = self.rate(now, now)
        if rate is not None and rate < 0.80:
            return "ROLLBACK", f"{rate:.1%} < 80 %", None
        if now < self.watch:
            return CONTINUE
        return ("PROMOTE" if rate is not None and rate >= 0.95 else "HOLD"), "", None


class ArgoExample(Rule):
    """The documented analysis: every five minutes at least 95 %, and more than three failed looks end it."""

    every = 300.0
    failed = 0

    def look(self, now: float) -> Look:
        rate = self.rate(now, self.every)
        self.failed += rate is None or rate < 0.95
        if self.failed > 3:
            return "ROLLBACK", f"{self.failed} looks failed", None
        return ("PROMOTE", "", None) if now >= self.watch else CONTINUE


class Flagger5(Rule):
    """A look each minute, 95 %; failed looks add up, no data is a failed look, and so many roll back."""

    threshold = 5
    failed = passed = 0

    def look(self, now: float) -> Look:
        rate = self.rate(now, self.every)
        if rate is not None and rate >= 0.95:
            self.passed += 1
        else:
            self.failed += 1
        if self.failed >= self.threshold:
            return "ROLLBACK", f"{self.failed} looks failed", None
        return ("PROMOTE", "", None) if self.passed * self.every >= self.watch else CONTINUE


class Flagger10(Flagger5):
    """The same with the threshold of most of its examples."""

    threshold = 10


class CodeDeploy(Rule):
    """An alarm on three of five minutes below 80 %. Missing data is not counted, as by default."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        super().__init__(header)
        self.points: list[bool] = []

    def look(self, now: float) -> Look:
        rate = self.rate(now, self.every)
        self.points.append(rate is not None and rate < 0.80)
        if sum(self.points[-5:]) >= 3:
            return "ROLLBACK", "3 of 5 minutes below 80 %", None
        return ("PROMOTE", "", None) if now >= self.watch else CONTINUE


RULES = {
    "source runbook": Runbook,
    "Argo Rollouts, documented example": ArgoExample,
    "Flagger, threshold 5": Flagger5,
    "Flagger, threshold 10": Flagger10,
    "CodeDeploy, 3 of 5 below 80 %": CodeDeploy,
}
