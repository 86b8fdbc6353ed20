"""How well a gate decides: the sequential gate, as a policy that sees the events of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.gate.parameters import Parameters
from handlers.gate.sequential import Gate
from handlers.gate.values import Finding


def policy(header: Mapping[str, Any]) -> Ours:
    """A policy for one stream, made from its header."""
    return Ours(header)


class Ours:
    """The project's gate."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        self.watch = float(header.get("watch_s", 1800.0))
        parameters = Parameters(watch_s=self.watch, deadline_s=float(header.get("deadline_s", 60.0)))
        self.gate = Gate(header["segments"], day_before(header.get("baseline", {})), parameters)
        self.observe = self.gate.observe
        self.throttled = self.gate.throttled

    def decide(self, now: float) -> tuple[str, str, dict[str, Any]]:
        decision = self.gate.decide(now)
        if decision.finding is Finding.UNHEALTHY:
            return "ROLLBACK", decision.sentence, decision.inputs
        if decision.finding is Finding.HEALTHY:
            return "PROMOTE", decision.sentence, decision.inputs
        return "CONTINUE" if now < self.watch else "HOLD", decision.sentence, decision.inputs


def day_before(baseline: Mapping[str, Any]) -> DayBefore:
    """The day before, from a header."""
    types = {
        name: TypeBefore(
            units=day["units"],
            ok=day["ok"],
            fingerprints=day.get("fingerprints", {}),
            waited=day.get("waited", 0.0),
            latency_s=tuple(day["latency_s"]) if "latency_s" in day else None,
        )
        for name, day in baseline.get("types", {}).items()
    }
    wait_p99_s = baseline["wait_s"][1] if "wait_s" in baseline else None
    return DayBefore(
        units=baseline.get("items", 0), ok=baseline.get("ok", 1.0), types=types, wait_p99_s=wait_p99_s
    )
