"""A plan as text, for a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from handlers.release.phase import Phase, short
from handlers.release.planned import Plan

COMMITS_SHOWN = 8


def lines(plan: Plan, width: int = 80) -> Iterator[str]:
    """The lines of the plan: its revisions, commits, checks, dead letters and steps."""
    yield from _head(plan, width)
    yield "Checks"
    for check in plan.checks:
        yield from _wrapped(f" {check.mark} {check.name:<12} ", check.sentence, width)
    yield "Dead letters"
    yield from _dead_letters(plan, width)
    yield from _steps(plan, width)


def _head(plan: Plan, width: int) -> Iterator[str]:
    change = f"{short(plan.from_revision)} -> {short(plan.to_revision)}"
    unchanged = f"{short(plan.to_revision)} stays: nothing is deployed"
    yield f"plan {plan.hash}  {plan.environment}  {change if _deploys(plan) else unchanged}"
    for commit in plan.commits[:COMMITS_SHOWN]:
        yield f"   {textwrap.shorten(f'{commit[:1]} {commit[1:]}', width - 3, placeholder=' ...')}"
    if len(plan.commits) > COMMITS_SHOWN:
        yield f"   ... and {len(plan.commits) - COMMITS_SHOWN} more commits"


def _dead_letters(plan: Plan, width: int) -> Iterator[str]:
    for (entity, code), count in sorted(plan.by_type_and_error().items()):
        yield f" {count:>6} {entity}, error {code}"
    for reason, count in sorted(plan.set_aside.items()):
        yield from _wrapped(f" {count:>6} ", f"not drained: {reason}", width)
    for kind, count in sorted(plan.failed.items()):
        yield from _wrapped(f" {count:>6} ", f"in status failed, the operator must check them: {kind}", width)
    if not plan.events and not plan.set_aside and not plan.failed:
        yield "      0 in the queue"


def _steps(plan: Plan, width: int) -> Iterator[str]:
    if not plan.good:
        failed = sum(not check.good for check in plan.checks)
        advice = "Fix them and run `runbook plan` again."
        sentence = f"none: {failed} of {len(plan.checks)} checks failed. {advice}"
        yield from _wrapped("Steps    ", sentence, width)
        return
    yield "Steps"
    for number, step in enumerate(plan.steps, start=1):
        yield from _wrapped(f" {number}. ", step, width)
    bars = plan.thresholds
    below = "rolled back" if _deploys(plan) else "held"
    gate = f"good from {bars.good_percent:g} %, {below} below {bars.roll_back_percent:g} %"
    yield from _wrapped("Gate     ", f"{gate}; about {plan.seconds_expected / 60:.0f} min", width)
    if _deploys(plan):
        yield f"Rollback to {short(plan.from_revision)}, present on {_present(plan)}"


def _deploys(plan: Plan) -> bool:
    return Phase.DEPLOYING in plan.scope


def _present(plan: Plan) -> str:
    names = [host.name for host in plan.hosts if host.rollback_present]
    return "every host" if len(names) == len(plan.hosts) else (", ".join(names) or "no host")


def _wrapped(head: str, sentence: str, width: int) -> list[str]:
    return textwrap.wrap(
        sentence, width, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False
    ) or [head]
