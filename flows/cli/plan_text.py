"""A plan as text, for a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

from flows.cli.output import printable
from handlers.environment.advice import addressed
from handlers.release.approval import is_asked, policy_of
from handlers.release.phase import Phase, short
from handlers.release.planned import Plan

COMMITS_SHOWN = 8
HOSTS_SHOWN = 30
MIGRATIONS_SHOWN = 12


def lines(plan: Plan, width: int = 80) -> Iterator[str]:
    """The lines of the plan: its revisions, commits, checks, hosts, migrations, dead letters and steps."""
    yield from _head(plan, width)
    yield "Checks"
    for check in plan.checks:
        sentence = addressed(check.sentence, plan.environment)
        yield from _wrapped(f" {check.mark} {check.name:<12} ", sentence, width)
    yield from _hosts(plan, width)
    yield from _migrations(plan, width)
    yield "Dead letters"
    yield from _dead_letters(plan, width)
    yield from _steps(plan, width)


def _head(plan: Plan, width: int) -> Iterator[str]:
    change = f"{short(plan.from_revision)} -> {short(plan.to_revision)}"
    unchanged = f"{short(plan.to_revision)} stays: nothing is deployed"
    yield f"plan {plan.hash}  {plan.environment}  {change if _deploys(plan) else unchanged}"
    for commit in plan.commits[:COMMITS_SHOWN]:
        line = printable(f"{commit[:1]} {commit[1:]}")
        yield f"   {textwrap.shorten(line, width - 3, placeholder=' ...')}"
    if len(plan.commits) > COMMITS_SHOWN:
        yield f"   ... and {len(plan.commits) - COMMITS_SHOWN} more commits"


def _hosts(plan: Plan, width: int) -> Iterator[str]:
    """The table of hosts and steps: numbers say the order, and what has one number is done together."""
    if not plan.host_steps:
        return
    names = list(plan.host_steps[0].places)
    runs = {host.name: short(host.current) for host in plan.hosts}
    first = min(max(12, *(len(each.host) for each in plan.host_steps)), width - 9 * len(names) - 10)
    yield f"{'Hosts':<{first + 1}}" + "".join(f"{name:>9}" for name in names) + "  runs"
    for each in plan.host_steps[:HOSTS_SHOWN]:
        places = "".join(f"{each.places.get(name, ''):>9}" for name in names)
        yield f" {each.host[:first]:<{first}}{places}  {runs.get(each.host, 'unknown')}"
    if len(plan.host_steps) > HOSTS_SHOWN:
        last = plan.host_steps[-1].places["switch"]
        yield f" ... and {len(plan.host_steps) - HOSTS_SHOWN} more hosts, the last of them at {last}"


def _migrations(plan: Plan, width: int) -> Iterator[str]:
    if plan.migrations:
        yield "Migrations"
    for each in plan.migrations[:MIGRATIONS_SHOWN]:
        yield from _wrapped(f" {each.mark:<9} ", printable(each.sentence), width)
    if len(plan.migrations) > MIGRATIONS_SHOWN:
        counts = Counter(each.mark for each in plan.migrations[MIGRATIONS_SHOWN:])
        yield f" ... and {', '.join(f'{count} {mark}' for mark, count in sorted(counts.items()))} more"


def _dead_letters(plan: Plan, width: int) -> Iterator[str]:
    for (entity, code), count in sorted(plan.by_type_and_error().items()):
        yield from _wrapped(f" {count:>6} ", f"{entity}, error {code}: drained", width)
    for reason, count in sorted(plan.set_aside.items()):
        yield from _wrapped(f" {count:>6} ", f"not drained: {reason}", width)
    for kind, count in sorted(plan.failed.items()):
        yield from _wrapped(f" {count:>6} ", f"in status failed, the operator must check them: {kind}", width)
    if not plan.queue:
        yield "      not known: the queue could not be read"
    elif not plan.events and not plan.set_aside and not plan.failed:
        yield "      0 in the queue"


def _steps(plan: Plan, width: int) -> Iterator[str]:
    if not plan.good:
        failed = sum(not check.good for check in plan.checks)
        advice = addressed("Fix them and run `runbook plan` again.", plan.environment)
        sentence = f"none: {failed} of {len(plan.checks)} checks failed. {advice}"
        yield from _wrapped("Steps    ", sentence, width)
        return
    yield "Steps"
    for number, step in enumerate(plan.steps, start=1):
        yield from _wrapped(f" {number}. ", step, width)
    yield from _wrapped("Time     ", _time(plan), width)
    bars = plan.thresholds
    below = "rolled back" if _deploys(plan) and not plan.one_way else "held"
    yield from _wrapped(
        "Gate     ", f"good from {bars.good_percent:g} %, {below} below {bars.roll_back_percent:g} %", width
    )
    if _deploys(plan):
        yield from _wrapped("Rollback ", _rollback(plan), width)
    if is_asked(plan):
        yield from _wrapped("Approval ", _approval(plan), width)


def _time(plan: Plan) -> str:
    """From the releases before; where there is none, by the settings, and it says so."""
    usual = plan.usual
    if usual is None:
        return f"about {_span(plan.seconds_expected)} by the settings; no history of such a release"
    total = usual.total
    count = f"{usual.releases} release{'s' if usual.releases > 1 else ''} before"
    phases = ", ".join(f"{phase} {_span(span.usual)}" for phase, span in usual.phases.items())
    return f"usually {_span(total.usual)} ({_span(total.shortest)} to {_span(total.longest)} in {count}): {phases}"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _rollback(plan: Plan) -> str:
    target = f"to {short(plan.from_revision)}, present on {_present(plan)}"
    if not plan.one_way:
        return target
    count = len(plan.one_way)
    return (
        f"{target}; NOT automatic: {count} contract migration{'s' if count > 1 else ''}, so a breach holds it"
    )


def _approval(plan: Plan) -> str:
    policy = policy_of(plan.settings)
    people = f" of {', '.join(policy.approvers)}" if policy.approvers else ""
    own = "" if policy.approval.own else "; whoever asks does not count"
    return f"{policy.needed} needed{people}, within {_span(policy.approval.expires_seconds)}{own}"


def _deploys(plan: Plan) -> bool:
    return Phase.DEPLOYING in plan.scope


def _present(plan: Plan) -> str:
    names = [host.name for host in plan.hosts if host.rollback_present]
    return "every host" if len(names) == len(plan.hosts) else (", ".join(names) or "no host")


def _wrapped(head: str, sentence: str, width: int) -> list[str]:
    return textwrap.wrap(
        sentence,
        width,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [head]
