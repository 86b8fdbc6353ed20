"""Judges a drain. Replays roll back only if they fail as live traffic would, of errors that were not there before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from handlers.gate.letters import DrainMeasurement, Group, evidence, most_common, of_type
from handlers.gate.phrases import before, is_of, lists, shortened
from handlers.gate.sentences import MILLION, source_down
from handlers.gate.staged import DrainLimits, SetAside, set_aside
from handlers.gate.values import Finding, Judgement

REASONS_NAMED = 2
LABEL_MAX = 40
INSTANT_MAX = 50
WORDS_MAX = 23
"""Two are left for the number of batches."""


def judge_drain(measurement: DrainMeasurement, limits: DrainLimits) -> Judgement:
    """Judge the drain so far. Only UNHEALTHY stops it; what else fails is set aside, and the others go on."""
    finding, sentence = _judged(measurement, limits)
    inputs = {"rule": "drain", "seen": lists(asdict(measurement)), "limits": lists(limits.as_json())}
    return Judgement(finding=finding, sentence=sentence, inputs=inputs)


def judge_stored_drain(seen: Mapping[str, Any], limits: Mapping[str, Any]) -> Judgement:
    """The same from stored inputs."""
    values = {**limits, "instant_errors": tuple(limits["instant_errors"])}
    return judge_drain(DrainMeasurement.from_json(seen), DrainLimits(**values))


def _judged(measurement: DrainMeasurement, limits: DrainLimits) -> tuple[Finding, str]:
    if measurement.source_down is not None:
        return Finding.SOURCE_DOWN, source_down(measurement.source_down)
    breach = _instant(measurement, limits) or _breach(measurement, limits)
    if breach:
        return Finding.UNHEALTHY, breach
    groups = measurement.groups
    completed, still_open = sum(group.completed for group in groups), sum(group.open for group in groups)
    settled = completed + sum(group.again for group in groups)
    if not settled:
        waiting = f", {still_open} still open" if still_open else ""
        return Finding.NO_DATA, f"no letter has settled{waiting}: no data is never a pass"
    aside = set_aside(groups, limits)
    if not completed:
        counts = ", ".join([f"0 of {settled} completed", *_others(groups)])
        return Finding.INCONCLUSIVE, _with_aside(f"{counts}: this revision cures none", aside)
    # What had failed before is no outcome. The rate is rounded down, so that it never shows what it misses.
    outcomes = completed + sum(group.news for group in groups)
    percent = math.floor(completed * 1000 / outcomes) / 10
    counts = ", ".join([f"{completed} of {outcomes} completed ({percent:g} %)", *_others(groups)])
    return (Finding.INCONCLUSIVE if still_open else Finding.HEALTHY), _with_aside(counts, aside)


def _instant(measurement: DrainMeasurement, limits: DrainLimits) -> str:
    for group in measurement.groups:
        for error in group.kinds:
            if any(is_of(name, error) for name in limits.instant_errors):
                return (
                    f"{group.entity}: {shortened(error, INSTANT_MAX)}: one such error is a breach"
                    f"{before(measurement.baseline)}"
                )
    return ""


def _breach(measurement: DrainMeasurement, limits: DrainLimits) -> str:
    """Why the release is rolled back; empty if no stream reaches both of its thresholds."""
    groups = measurement.groups
    streams = [("all types", groups, limits.risk(pooled=True))]
    streams += [
        (entity, of_type(groups, entity), limits.risk(pooled=False))
        for entity in sorted({group.entity for group in groups})
    ]
    found = []
    for name, mine, risk in streams:
        bad, good = sum(group.against for group in mine), sum(group.completed for group in mine)
        value = evidence(bad, good, limits.q)
        if (
            bad >= limits.failures_min
            and value >= 1 / (limits.alpha * risk)
            and evidence(bad, good, limits.q_mid) >= 1 / (limits.alpha_mid * risk)
        ):
            found.append((float(f"{value * risk:.9g}"), name, f"{bad} of {bad + good}", mine))
    if not found:
        return ""
    ratio, name, counts, mine = max(found, key=lambda each: each[:2])
    one_in = f"{ratio:,.0f}" if ratio < MILLION else "a million"
    return (
        f"{name}: {counts} failed anew ({_label(_newest(mine))}); fewer than 1 in {one_in} healthy releases would"
        f"{before(measurement.baseline)}"
    )


def _others(groups: Sequence[Group]) -> list[str]:
    """How many did not complete, by reason."""
    counts = (
        (sum(group.failed for group in groups), "failed"),
        (sum(group.stuck for group in groups), "stuck"),
        (sum(group.waits for group in groups), "without parents"),
        (sum(group.known for group in groups), "failed as before"),
        (sum(group.open for group in groups), "open"),
    )
    return [f"{number} {what}" for number, what in counts if number]


def _with_aside(sentence: str, found: Sequence[SetAside]) -> str:
    """The sentence, with how many letters are set aside and with as many reasons as fit."""
    if not found:
        return sentence
    kinds: Counter[tuple[str, str]] = Counter()
    for each in found:
        kinds[each.entity, _label(each.error)] += each.letters
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    total = sum(kinds.values())
    whole = f"{sentence}; {total} set aside"
    for named in range(REASONS_NAMED, 0, -1):
        reasons = [f"{number} {entity} ({label})" for (entity, label), number in ordered[:named]]
        rest = total - sum(number for _, number in ordered[:named])
        more = [f"{rest} more"] if rest else []
        longer = f"{whole}: {', '.join([*reasons, *more])}"
        if len(longer.split()) <= WORDS_MAX:
            return longer
    return whole


def _newest(groups: Sequence[Group]) -> str:
    errors: Counter[str] = Counter()
    for group in groups:
        errors.update(dict(group.errors))
    common = most_common(errors)
    return common[0][0] if common else "stuck"


def _label(error: str) -> str:
    """An error in one word: its type, or its first word."""
    words = error.replace("<value>", "").split()
    return shortened(words[0].rstrip(":;,"), LABEL_MAX) if words else "unknown"
