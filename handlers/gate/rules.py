"""The gate: measurements in, judgement out. Pure: it reads no clock, no database, no configuration.

A judgement is a finding with one plain sentence that shows the numbers. It keeps its inputs, from which
`judge(**inputs)` makes the same judgement again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from handlers.gate.drain_rules import judge_stored_drain
from handlers.gate.phrases import before, is_of, lists, shortened
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
    """Judge again from stored inputs, perhaps with other limits: `judge(**judgement.inputs)`.

    *seen* is the measurement: the parameters are named like the keys that ledgers store. Raises ValueError for an
    unknown rule.
    """
    if rule == "drain":
        return judge_stored_drain(seen, limits)
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


def judge_canary(measurement: CanaryMeasurement, limits: Thresholds) -> Judgement:
    """Judge one event that was followed until it settled. It is no statistic: a single failure decides."""
    finding, sentence = _canary(measurement)
    return _judgement("canary", measurement, limits, finding, sentence)


def _canary(measurement: CanaryMeasurement) -> tuple[Finding, str]:
    what = f"{measurement.entity} {measurement.key}"
    took = f"{measurement.seconds:.1f} s"
    if measurement.source_down is not None:
        return Finding.SOURCE_DOWN, f"the state of {what} is unknown: {measurement.source_down}"
    if measurement.status == "failed":
        return (
            Finding.UNHEALTHY,
            f"{what} failed after {took}: {shortened(measurement.error) or 'no error text'}",
        )
    if measurement.status != "completed":
        if measurement.seconds < measurement.limit_seconds:
            return (
                Finding.INCONCLUSIVE,
                f"{what} is still open after {took} of {measurement.limit_seconds:g} s",
            )
        return (
            Finding.UNHEALTHY,
            f"{what} has no outcome after {took}; the limit is {measurement.limit_seconds:g} s",
        )
    fault = _canary_fault(measurement)
    if fault:
        return Finding.UNHEALTHY, f"{what} completed, but {fault}"
    not_compared = (
        f"; its row was not compared: {measurement.not_compared}" if measurement.not_compared else ""
    )
    return Finding.HEALTHY, f"{what} completed, {took}{not_compared}"


def _canary_fault(measurement: CanaryMeasurement) -> str:
    """Why a completed canary is no proof of the revision; empty when it is one."""
    if measurement.worker_revision is not None and not _same(
        measurement.worker_revision, measurement.wanted_revision
    ):
        worker, released = measurement.worker_revision[:7], measurement.wanted_revision[:7]
        return f"by a worker of {worker}, not of the released {released}"
    if measurement.differences:
        return f"its row differs from the payload: {'; '.join(measurement.differences)}"
    return ""


def judge_batch(measurement: Measurement, limits: Thresholds) -> Judgement:
    """Judge a drain as older versions did, from stored inputs: a replay counts like a live event.

    Inconclusive is no breach: the drain continues, but its batches do not grow.
    """
    total = measurement.total()
    early = _judge_early("batch", measurement, limits)
    if early is not None:
        return early
    if total.open > 0:
        return _judgement(
            "batch", measurement, limits, Finding.INCONCLUSIVE, f"{_sum(total)}: not all have settled"
        )
    if not _reaches(total, limits.good_percent):
        return _judgement(
            "batch",
            measurement,
            limits,
            Finding.INCONCLUSIVE,
            f"{_sum(total)}, below {limits.good_percent:g} % but no breach: {_why_no_breach(total, limits)}",
        )
    return _judgement(
        "batch",
        measurement,
        limits,
        Finding.HEALTHY,
        f"{_sum(total)}; the threshold is {limits.good_percent:g} %",
    )


def judge_watch(measurement: Measurement, limits: Thresholds) -> Judgement:
    """Judge live traffic since the release. Too few events are inconclusive, never a pass."""
    total = measurement.total()
    early = _judge_early("watch", measurement, limits)
    if early is not None:
        return early

    def judgement(finding: Finding, sentence: str) -> Judgement:
        return _judgement("watch", measurement, limits, finding, sentence)

    if not _reaches(total, limits.good_percent):
        return judgement(
            Finding.INCONCLUSIVE,
            f"{_sum(total)}, below {limits.good_percent:g} % but no breach: {_why_no_breach(total, limits)}",
        )
    # Completed events, not outcomes: otherwise one more failure could turn "too few" into a pass.
    missing = limits.outcomes_min - total.completed
    if missing > 0:
        return judgement(
            Finding.INCONCLUSIVE,
            f"{_sum(total)}; {missing} more must complete before the watch can pass",
        )
    only_failed = [count for count in measurement.counts if count.bad > 0 and count.completed == 0]
    if only_failed:
        return judgement(
            Finding.INCONCLUSIVE,
            f"{_sum(total)}, but {_sum(only_failed[0], of=True)}: fewer than {limits.failures_min} failures, "
            "but no success",
        )
    return judgement(Finding.HEALTHY, f"{_sum(total)}; the threshold is {limits.good_percent:g} %")


def _judge_early(rule: str, measurement: Measurement, limits: Thresholds) -> Judgement | None:
    """The rules that drain and watch share: no source, no data, and a breach of all types together or of one."""
    if measurement.source_down is not None:
        return _judgement(
            rule,
            measurement,
            limits,
            Finding.SOURCE_DOWN,
            f"nothing could be measured: {measurement.source_down}",
        )
    for count in measurement.counts:
        # Judgements that an older version stored have no kinds.
        for error in count.kinds or count.errors:
            if any(is_of(name, error) for name in limits.instant_errors):
                return _judgement(
                    rule,
                    measurement,
                    limits,
                    Finding.UNHEALTHY,
                    f"{count.entity}: {shortened(error)}: one such error is a breach{before(measurement.baseline)}",
                )
    total = measurement.total()
    if total.outcomes == 0:
        if total.known and not total.open:
            return _judgement(
                rule,
                measurement,
                limits,
                Finding.INCONCLUSIVE,
                f"{total.known} failed as before the release, and nothing else has settled: neither this revision nor "
                "the former one cures it",
            )
        waiting = f", {total.open} still open" if total.open else ""
        waiting += f" ({total.held} held by {total.held_by})" if total.held else ""
        return _judgement(
            rule,
            measurement,
            limits,
            Finding.NO_DATA,
            f"no event has settled{waiting}: no data is never a pass",
        )
    for count in (total, *measurement.counts):
        if count.bad >= limits.failures_min and not _reaches(count, limits.roll_back_percent):
            return _judgement(
                rule,
                measurement,
                limits,
                Finding.UNHEALTHY,
                f"{_sum(count, of=True)}, below {limits.roll_back_percent:g} %{before(measurement.baseline)}",
            )
    return None


def _reaches(count: Count, percent: float) -> bool:
    # Multiplied, not divided: a rate that equals the threshold must not fall below it by rounding.
    return count.completed * 100 >= percent * count.outcomes


def _sum(count: Count, *, of: bool = False) -> str:
    """The numbers in words. The rate is rounded down, so that it never shows a threshold that it misses."""
    name = f"{count.entity}: " if of else ""
    rate = math.floor(count.completed * 1000 / count.outcomes) / 10 if count.outcomes else 0.0
    parts = [f"{name}{count.completed} of {count.outcomes} completed ({rate:g} %)"]
    if count.failed:
        parts.append(f"{count.failed} failed")
    if count.late:
        parts.append(f"{count.late} unfinished for too long")
    if count.known:
        parts.append(f"{count.known} failed as before the release")
    if count.open:
        held = f" ({count.held} held by {count.held_by})" if count.held else ""
        parts.append(f"{count.open} still open{held}")
    return ", ".join(parts)


def _why_no_breach(total: Count, limits: Thresholds) -> str:
    if total.bad < limits.failures_min:
        return f"fewer than {limits.failures_min} failures never roll back"
    return f"at or above {limits.roll_back_percent:g} %, a person decides"


def _same(worker_revision: str, wanted_revision: str) -> bool:
    """Whether two commits are equal as far as both are known: a worker may report only the first digits."""
    digits = min(len(worker_revision), len(wanted_revision))
    return digits >= 7 and worker_revision[:digits] == wanted_revision[:digits]


def _measurement(stored: Mapping[str, Any]) -> Measurement:
    return Measurement(
        counts=tuple(
            Count(**{**count, "errors": tuple(count["errors"]), "kinds": tuple(count.get("kinds", ()))})
            for count in stored["counts"]
        ),
        source_down=stored["source_down"],
        baseline=Baseline(**stored["baseline"]) if stored["baseline"] else None,
    )


def _judgement(
    rule: str,
    measurement: Measurement | CanaryMeasurement,
    limits: Thresholds,
    finding: Finding,
    sentence: str,
) -> Judgement:
    inputs = {"rule": rule, "seen": lists(asdict(measurement)), "limits": lists(asdict(limits))}
    return Judgement(finding=finding, sentence=sentence, inputs=inputs)
