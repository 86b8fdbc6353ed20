"""The arithmetic of the rules that follow dead letters: the canary, the drain, and those of earlier versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from handlers.gate.letters import DrainMeasurement, evidence, of_type
from handlers.gate.odds import GAINS
from handlers.gate.staged import DrainLimits


def rule_lines(rule: str, seen: Mapping[str, Any], limits: Mapping[str, Any]) -> Iterator[str]:
    """A canary's facts, or the counts of a drain with their rates and the thresholds."""
    if seen.get("source_down"):
        yield f"  nothing could be measured: {seen['source_down']}"
    if rule == "canary":
        yield (
            f"  {seen['entity']} {seen['key']}: {seen['status']} after {seen['seconds']:.1f} s,"
            f" the limit is {seen['limit_seconds']:g} s"
        )
        if seen.get("worker_revision"):
            yield f"  applied by {seen['worker_revision']}, released {seen['wanted_revision']}"
        for difference in seen.get("differences", ()):
            yield f"  its row differs: {difference}"
    elif rule == "drain":
        yield from _drain_lines(seen, limits)
    else:
        yield from _count_lines(seen, limits)


def _drain_lines(seen: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[str]:
    """Each type and all together: what counts against the release, its odds at both bars, and what rolls back."""
    groups = DrainMeasurement.from_json(seen).groups
    limits = DrainLimits(**{**stored, "instant_errors": tuple(stored["instant_errors"])})
    yield "  failed anew: failed or stuck; known, waiting and open letters are no evidence"
    yield (
        "  E(q) = mean over g of (q1 / q)^failed * (1 - g)^completed, q1 = q + (1 - q) * g; g = "
        + ", ".join(f"{gain:g}" for gain in GAINS)
    )
    yield f"  {'stream':<18} {'completed':>9} {'failed':>7} {'known':>7} {'waits':>7} {'open':>6} {'left':>6}"
    streams = [
        (entity, of_type(groups, entity), False) for entity in sorted({each.entity for each in groups})
    ]
    for name, mine, pooled in (*streams, ("all types", groups, True)):
        good, bad = sum(each.completed for each in mine), sum(each.against for each in mine)
        rest = (sum(getattr(each, field) for each in mine) for field in ("known", "waits", "open", "left"))
        known, waits, open_, left = rest
        yield f"  {name:<18} {good:>9} {bad:>7} {known:>7} {waits:>7} {open_:>6} {left:>6}"
        risk = limits.risk(pooled=pooled)
        yield (
            f"    E({limits.q:g}) = {evidence(bad, good, limits.q):.6g}, "
            f"threshold {1 / (limits.alpha * risk):.6g} = 1 / (alpha {limits.alpha:g} * risk {risk:.4g});  "
            f"E({limits.q_mid:g}) = {evidence(bad, good, limits.q_mid):.6g}, "
            f"threshold {1 / (limits.alpha_mid * risk):.6g}"
        )
    yield f"  a breach: both odds reach their threshold, with {limits.failures_min} failures or more"


def _count_lines(seen: Mapping[str, Any], limits: Mapping[str, Any]) -> Iterator[str]:
    """The counts of each type, and the rate that the thresholds are held against."""
    yield "  type               completed   failed     late    known     open    rate of completed + failed + late"
    counts = list(seen["counts"])
    total = {
        name: sum(count.get(name, 0) for count in counts)
        for name in ("completed", "failed", "late", "known", "open")
    }
    for count in (*counts, {"entity": "all types", **total}):
        numbers = [count.get(name, 0) for name in ("completed", "failed", "late", "known", "open")]
        ended = sum(numbers[:3])
        rate = f"{100 * numbers[0] / ended:.2f} % of {ended}" if ended else "nothing has ended"
        yield f"  {count['entity']:<18} " + " ".join(f"{each:>8}" for each in numbers) + f"    {rate}"
    yield (
        f"  good from {limits['good_percent']:g} % on; a breach below {limits['roll_back_percent']:g} % with"
        f" {limits['failures_min']} failures or more, of all types or of one"
    )
