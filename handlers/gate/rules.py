"""The gate: measurements in, judgement out. Pure: it reads no clock, no database, no configuration.

A judgement is a finding with one plain sentence that carries the arithmetic, and with the inputs from which
`judge(**inputs)` comes to the same finding again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from handlers.gate.values import (
    Baseline,
    CanaryMeasurement,
    Count,
    Finding,
    Judgement,
    Measurement,
    Thresholds,
)


def judge(*, rule: str, seen: Mapping[str, Any], limits: Mapping[str, Any]) -> Judgement:
    """Judge again from stored inputs, perhaps with other limits: `judge(**judgement.inputs)`."""
    thresholds = Thresholds(**{**limits, "instant_errors": tuple(limits["instant_errors"])})
    match rule:
        case "canary":
            return judge_canary(
                CanaryMeasurement(**{**seen, "differences": tuple(seen["differences"])}), thresholds
            )
        case "batch":
            return judge_batch(_measurement(seen), thresholds)
        case "watch":
            return judge_watch(_measurement(seen), thresholds)
    raise ValueError(f"there is no rule called {rule!r}")


def judge_canary(seen: CanaryMeasurement, limits: Thresholds) -> Judgement:
    """One event, followed to its end: a probe, not a statistic, so a single failure decides."""
    finding, sentence = _canary(seen)
    return _judgement("canary", seen, limits, finding, sentence)


def _canary(seen: CanaryMeasurement) -> tuple[Finding, str]:
    what = f"{seen.entity} {seen.key}"
    took = f"{seen.seconds:.1f} s"
    if seen.source_down is not None:
        return Finding.SOURCE_DOWN, f"cannot see what became of {what}: {seen.source_down}"
    if seen.status == "failed":
        return Finding.UNHEALTHY, f"{what} failed after {took}: {_shortened(seen.error) or 'no error text'}"
    if seen.status != "completed":
        if seen.seconds < seen.limit_seconds:
            return Finding.INCONCLUSIVE, f"{what} is still open after {took} of {seen.limit_seconds:g} s"
        return Finding.UNHEALTHY, f"{what} has no outcome after {took}; the limit is {seen.limit_seconds:g} s"
    fault = _canary_fault(seen)
    if fault:
        return Finding.UNHEALTHY, f"{what} completed, but {fault}"
    unseen = f"; its row was not compared: {seen.not_compared}" if seen.not_compared else ""
    return Finding.HEALTHY, f"{what} completed, {took}{unseen}"


def _canary_fault(seen: CanaryMeasurement) -> str:
    """Why a completed canary proves nothing; empty when it does."""
    if seen.worker_revision is not None and not _same(seen.worker_revision, seen.wanted_revision):
        return f"by a worker of {seen.worker_revision[:7]}, not of the released {seen.wanted_revision[:7]}"
    if seen.differences:
        return f"its row does not say what the payload says: {'; '.join(seen.differences)}"
    return ""


def judge_batch(seen: Measurement, limits: Thresholds) -> Judgement:
    """The drain so far. Inconclusive is no breach: go on, but do not let the batches grow."""
    total = seen.total()
    early = _breach("batch", seen, limits)
    if early is not None:
        return early
    if total.open > 0:
        return _judgement("batch", seen, limits, Finding.INCONCLUSIVE, f"{_sum(total)}: not all at rest yet")
    if not _reaches(total, limits.good_percent):
        return _judgement(
            "batch",
            seen,
            limits,
            Finding.INCONCLUSIVE,
            f"{_sum(total)}, below {limits.good_percent:g} % but no breach: {_why_no_breach(total, limits)}",
        )
    return _judgement(
        "batch", seen, limits, Finding.HEALTHY, f"{_sum(total)}; the bar is {limits.good_percent:g} %"
    )


def judge_watch(seen: Measurement, limits: Thresholds) -> Judgement:
    """Live traffic since the release. Too little to tell is inconclusive, never a pass."""
    total = seen.total()
    early = _breach("watch", seen, limits)
    if early is not None:
        return early

    def found(finding: Finding, sentence: str) -> Judgement:
        return _judgement("watch", seen, limits, finding, sentence)

    if not _reaches(total, limits.good_percent):
        return found(
            Finding.INCONCLUSIVE,
            f"{_sum(total)}, below {limits.good_percent:g} % but no breach: {_why_no_breach(total, limits)}",
        )
    # Completed ones, not outcomes: otherwise one more failure could turn "too little" into a pass.
    missing = limits.outcomes_min - total.completed
    if missing > 0:
        return found(
            Finding.INCONCLUSIVE,
            f"{_sum(total)}; {missing} more must complete before the watch can pass",
        )
    dead = [count for count in seen.counts if count.bad > 0 and count.completed == 0]
    if dead:
        return found(
            Finding.INCONCLUSIVE,
            f"{_sum(total)}, but {_sum(dead[0], of=True)}: fewer than {limits.failures_min} failures, "
            "and not one success",
        )
    return found(Finding.HEALTHY, f"{_sum(total)}; the bar is {limits.good_percent:g} %")


def _breach(rule: str, seen: Measurement, limits: Thresholds) -> Judgement | None:
    """What every count of events shares: no source, no data, and the breach, pooled and for each type."""
    if seen.source_down is not None:
        return _judgement(
            rule, seen, limits, Finding.SOURCE_DOWN, f"nothing could be measured: {seen.source_down}"
        )
    for count in seen.counts:
        for error in count.errors:
            if any(text in error for text in limits.instant_errors):
                return _judgement(
                    rule,
                    seen,
                    limits,
                    Finding.UNHEALTHY,
                    f"{count.entity}: {_shortened(error)}: one such error is enough{_before(seen)}",
                )
    total = seen.total()
    if total.outcomes == 0:
        waiting = f", {total.open} still open" if total.open else ""
        return _judgement(
            rule, seen, limits, Finding.NO_DATA, f"no event has come to an end{waiting}: no data is no pass"
        )
    for count in (total, *seen.counts):
        if count.bad >= limits.failures_min and not _reaches(count, limits.roll_back_percent):
            return _judgement(
                rule,
                seen,
                limits,
                Finding.UNHEALTHY,
                f"{_sum(count, of=True)}, below {limits.roll_back_percent:g} %{_before(seen)}",
            )
    return None


def _reaches(count: Count, percent: float) -> bool:
    # Multiplied, not divided: a rate that is exactly at the bar must not fall below it by rounding.
    return count.completed * 100 >= percent * count.outcomes


def _sum(count: Count, *, of: bool = False) -> str:
    """The arithmetic in words. The rate is rounded down: it must not read as reaching a bar it misses."""
    name = f"{count.entity}: " if of else ""
    rate = math.floor(count.completed * 1000 / count.outcomes) / 10 if count.outcomes else 0.0
    parts = [f"{name}{count.completed} of {count.outcomes} completed ({rate:g} %)"]
    if count.failed:
        parts.append(f"{count.failed} failed")
    if count.late:
        parts.append(f"{count.late} unfinished for too long")
    if count.open:
        parts.append(f"{count.open} still open")
    return ", ".join(parts)


def _why_no_breach(total: Count, limits: Thresholds) -> str:
    if total.bad < limits.failures_min:
        return f"fewer than {limits.failures_min} failures never roll back"
    return f"at or above {limits.roll_back_percent:g} %, a person looks"


def _before(seen: Measurement) -> str:
    """Rolling back to a revision that was no better is still right, but people should read that it was so."""
    if seen.baseline is None or seen.baseline.completed + seen.baseline.failed == 0:
        return ""
    count = Count(entity="", completed=seen.baseline.completed, failed=seen.baseline.failed)
    return f"; before the release {count.completed} of {count.outcomes} completed"


def _same(one: str, other: str) -> bool:
    short = min(len(one), len(other))
    return short >= 7 and one[:short] == other[:short]


def _shortened(text: str, most: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _measurement(seen: Mapping[str, Any]) -> Measurement:
    return Measurement(
        counts=tuple(Count(**{**count, "errors": tuple(count["errors"])}) for count in seen["counts"]),
        source_down=seen["source_down"],
        baseline=Baseline(**seen["baseline"]) if seen["baseline"] else None,
    )


def _judgement(
    rule: str, seen: Measurement | CanaryMeasurement, limits: Thresholds, finding: Finding, sentence: str
) -> Judgement:
    inputs = {"rule": rule, "seen": _lists(asdict(seen)), "limits": _lists(asdict(limits))}
    return Judgement(finding=finding, sentence=sentence, inputs=inputs)


def _lists(value: Any) -> Any:
    """Tuples as lists, as JSON will have them, so that stored and fresh inputs are equal."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_lists(item) for item in value]
    return value
