"""The sums of the decisions of a release, as `runbook explain` prints them: those that decided it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from handlers.gate import explain
from handlers.gate.again import Again, CannotJudgeError, Stored
from handlers.gate.values import Finding
from handlers.release.ledger.records import JudgementRecord

SHOWN_MAX = 3


def of_decisions(judgements: Sequence[JudgementRecord]) -> list[dict[str, Any]]:
    """The last judgement of each rule, and the last breach: each with its arithmetic, line by line.

    Every look is judged again, because each goes on from the one before. One of another version has no sums.
    """
    looks = [
        Stored(number=number, finding=each.finding, sentence=each.sentence, inputs=each.inputs)
        for number, each in enumerate(judgements, 1)
    ]
    last = {look.rule: look.number for look in looks}
    breaches = [look.number for look in looks if look.finding is Finding.UNHEALTHY]
    chosen = sorted({*last.values(), *breaches[-1:]})[-SHOWN_MAX:]
    again, shown = Again(), []
    for look in looks:
        if look.number > max(chosen, default=0):
            break
        try:
            about = explain.explain(again, again.judge(look)) if look.number in chosen else again.judge(look)
            if isinstance(about, dict):
                lines = list(explain.lines(about)) if "rule" in about else [about["sentence"]]
                shown.append({"look": look.number, "sentence": look.sentence, "lines": lines})
        except CannotJudgeError as error:
            if look.number in chosen:
                shown.append({"look": look.number, "sentence": look.sentence, "lines": [str(error)]})
    return shown
