"""The numbers of the gate for an environment."""

from __future__ import annotations

from handlers.environment.model import Environment
from handlers.gate.parameters import Parameters

MACHINE_SECONDS, SLOW_MACHINE_SECONDS, TICK_MACHINE_SECONDS = 10.0, 2.0, 1.0
"""No age counts, and no look comes, sooner than this, in real seconds: a machine is no faster in a rehearsal."""


def parameters(environment: Environment, speed: float) -> Parameters:
    """The numbers of the gate for an environment, in runbook seconds. *speed* is how many of them a real one has."""
    bars, watch = environment.gate, environment.watch

    def at_least(seconds: float, real: float) -> float:
        return seconds if speed <= 1 else max(seconds, real * speed)

    defaults = Parameters()
    return Parameters(
        ok=bars.good_percent / 100,
        tolerable=bars.tolerable / 100,
        bad=bars.roll_back_percent / 100,
        deadline_s=at_least(watch.late_seconds, MACHINE_SECONDS),
        slow_s=at_least(min(defaults.slow_s, watch.late_seconds / 4), SLOW_MACHINE_SECONDS),
        tick_s=at_least(defaults.tick_s, TICK_MACHINE_SECONDS),
        watch_s=watch.window_seconds,
        records_min=bars.outcomes_min,
    )
