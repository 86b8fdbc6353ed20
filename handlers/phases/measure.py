"""Measurements for the gate from the queue and the ledger, and a phase's conclusion from the gate's finding."""

from __future__ import annotations

from handlers.environment.model import Environment
from handlers.gate.parameters import Parameters
from handlers.gate.staged import DrainLimits
from handlers.gate.values import Finding, Judgement, Thresholds
from handlers.queue.event import EntityType
from handlers.release.note import PhaseNote
from handlers.release.phase import Conclusion, Verdict

ERROR_SAMPLES_MAX = 5
KNOWN_SHARE_MAX = 0.2
"""An old error that more than this share of the records meets is not as it was: below 80 % is a breach."""


def thresholds(environment: Environment) -> Thresholds:
    """The environment's thresholds, as the gate takes them."""
    return Thresholds(**environment.gate.model_dump(exclude={"tolerable_percent"}))


def drain_limits(environment: Environment) -> DrainLimits:
    """The limits of the drain: those of the sequential gate, with the environment's bars where they are lower."""
    gate, numbers = environment.gate, Parameters()
    return DrainLimits(
        q=max(_failing(numbers.ok), _failing(gate.good_percent / 100)),
        q_mid=max(_failing(numbers.tolerable), _failing(gate.tolerable / 100)),
        alpha=numbers.alpha,
        alpha_mid=numbers.alpha_mid,
        pooled_share=numbers.pooled_share,
        track_share=numbers.hard_share,
        types=len(EntityType),
        failures_min=gate.failures_min,
        aside_max=_failing(gate.roll_back_percent / 100),
        instant_errors=gate.instant_errors,
    )


def _failing(good: float) -> float:
    """The share that fails if *good* is the share that does not; rounded, so that 95 % leave exactly 5 %."""
    return round(1 - good, 9)


def concluded(judgement: Judgement, note: PhaseNote | None = None) -> Conclusion:
    """The conclusion for a judgement: HEALTHY passes, UNHEALTHY fails, every other finding is inconclusive."""
    verdict = {Finding.HEALTHY: Verdict.PASS, Finding.UNHEALTHY: Verdict.FAIL}.get(
        judgement.finding, Verdict.INCONCLUSIVE
    )
    return Conclusion(verdict=verdict, sentence=judgement.sentence, note=note or PhaseNote())
