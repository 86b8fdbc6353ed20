"""The status view of a release, put together from what was read of it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from handlers.queue.limits import Limit
from handlers.release.due import Care
from handlers.release.ledger import releases
from handlers.release.ledger.dead_letters import Batch
from handlers.release.ledger.records import Stretch
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.left_behind import LeftBehind
from handlers.release.lock import Holder
from handlers.release.note import NextLook
from handlers.release.phase import FINISHED, LIVE, Phase, Release
from handlers.release.planned import Plan, kind_of
from handlers.status.host_proof import seconds_between
from handlers.status.host_state import hosts_of
from handlers.status.host_tree import Operation
from handlers.status.steps import BACK, DOING, Known, returns_of, stayed_seconds, steps_of
from handlers.status.view import HostStepView, StartView, StatusView, StepView
from handlers.status.waits import Standing, waits_of

_NEEDS: dict[Phase, str] = {
    Phase.HELD: "a person decides: `runbook resume`, `runbook rollback` or `runbook abort`",
    Phase.ROLLBACK_FAILED: "a person looks at the hosts that are not back, then `runbook rollback` goes on",
    Phase.REFUSED: "fix the problem above, then run `runbook plan` again",
}
_CUT_SHORT = BACK | {Phase.REFUSED, Phase.ABORTED}
"""These are not compared with releases that have succeeded."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was read of a release at one moment."""

    release: Release
    at: datetime
    """The database's time."""
    holder: Holder | None
    records: tuple[PhaseRecord, ...]
    plan: Plan
    care: Care
    judged: tuple[Stretch, ...] = ()
    operations: tuple[Operation, ...] = ()
    """The newest of each kind on each host, in each phase."""
    limits: tuple[Limit, ...] = ()
    start: StartView = field(default_factory=StartView)
    guard: tuple[StepView, ...] = ()
    batches: tuple[Batch, ...] = ()
    events_planned: int = 0
    events_settled: int = 0
    differences: tuple[str, ...] = ()
    taken_back: str = ""
    left_behind: tuple[LeftBehind, ...] = ()


def assemble(facts: Facts) -> StatusView:
    """The view of a release."""
    release, plan, care, current = facts.release, facts.plan, facts.care, facts.records[-1]
    until = _until(current, care, facts.at)
    known = Known(release=release, records=facts.records, plan=plan, operations=facts.operations, until=until)
    steps = steps_of(known)
    tree = next((step.hosts for step in steps if step.phase is current.phase), ())
    usual = plan.usual if release.phase not in _CUT_SHORT else None
    next_look = current.note.next or NextLook()
    return StatusView(
        environment=release.environment,
        at=facts.at,
        release=release,
        kind=kind_of(plan.scope),
        why=_why(release, current, facts.judged),
        need=_need(release, care),
        next_what=next_look.what,
        # Nobody keeps the appointment of a controller that died.
        next_at=None if care.carried is False else next_look.at,
        running_seconds=_running_seconds(release, current, until),
        window_seconds=current.note.window_seconds,
        phase_seconds=None if release.phase in FINISHED else seconds_between(current.started_at, until),
        total_seconds=_total(known),
        usual_total_seconds=round(usual.total.usual / release.speed, 1) if usual else None,
        usual_releases=usual.releases if usual else 0,
        waits=waits_of(
            Standing(
                release=release, record=current, hosts=tree, batches=facts.batches, care=care, at=facts.at
            )
        ),
        hosts=hosts_of(release, facts.records, plan, tree),
        host_steps=_newest_operations(current, facts.operations),
        returns=returns_of(release, facts.records),
        lock=facts.holder,
        carried=care.carried,
        uncarried_since=care.since,
        care=care.sentence,
        due=care.due,
        around=releases.around(facts.records),
        limits=facts.limits,
        start=facts.start,
        steps=(*steps, *facts.guard),
        batches=facts.batches,
        events_planned=facts.events_planned,
        events_settled=facts.events_settled,
        events_set_aside=sum(releases.set_aside(facts.records).values()),
        differences=facts.differences,
        findings=_findings(facts.judged),
        taken_back=facts.taken_back,
        left_behind=facts.left_behind,
    )


def _until(current: PhaseRecord, care: Care, at: datetime) -> datetime:
    """Until when the running phase is counted: now, or the last sign of a controller that died."""
    if care.carried is False and care.since is not None:
        return max(current.started_at, min(at, care.since))
    return at


def _total(known: Known) -> float | None:
    """Real seconds in all phases that do something; None before the first one."""
    phases = [*known.plan.scope, Phase.ROLLING_BACK]
    if not any(record.phase in phases for record in known.records):
        return None
    return round(sum(stayed_seconds(known, phase) for phase in phases), 1)


def _newest_operations(current: PhaseRecord, operations: Sequence[Operation]) -> tuple[HostStepView, ...]:
    """The newest operation of each host, while the hosts are being changed."""
    if current.phase not in (Phase.DEPLOYING, Phase.ROLLING_BACK):
        return ()
    own = [
        each for each in operations if each.phase is current.phase and each.started_at >= current.started_at
    ]
    newest = {each.host: each for each in sorted(own, key=lambda each: each.started_at)}
    return tuple(
        HostStepView(
            name=host,
            step=each.kind.removeprefix("back-"),
            outcome=each.outcome,
            started_at=each.started_at,
        )
        for host, each in sorted(newest.items())
    )


def _running_seconds(release: Release, current: PhaseRecord, until: datetime) -> float | None:
    """Runbook seconds of the running phase.

    Of a watch the time counts in which a controller watched.
    """
    if release.phase in FINISHED:
        return None
    note = current.note
    if note.watched_seconds is None or note.watched_at is None:
        return (until - current.started_at).total_seconds() * release.speed
    until = min(until, note.next.at) if note.next and note.next.at else until
    return note.watched_seconds + max(0.0, (until - note.watched_at).total_seconds()) * release.speed


def _findings(judged: Sequence[Stretch]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for stretch in judged:
        counts[str(stretch.finding)] += stretch.number
    return dict(counts)


def _why(release: Release, current: PhaseRecord, judged: Sequence[Stretch]) -> str:
    """The newest judgement of the running phase, otherwise its progress.

    For an ended, held or rolling back release it is the conclusion of the phase before, which is the cause.
    """
    own = [
        record for record in judged if record.until >= current.started_at and record.phase is release.phase
    ]
    if own:
        return own[-1].sentence
    if release.phase in LIVE - {Phase.HELD, Phase.ROLLING_BACK}:
        return current.note.looked or DOING.get(release.phase, "")
    return "" if release.phase in (Phase.PLANNED, Phase.APPROVED) else release.reason


def _need(release: Release, care: Care) -> str:
    if care.carried is False and release.phase is not Phase.ROLLBACK_FAILED:
        return ""
    if release.phase is Phase.HELD and release.from_revision == release.to_revision:
        return "a person decides: `runbook resume` or `runbook abort`; nothing was deployed"
    if release.phase in (Phase.PLANNED, Phase.APPROVED):
        return care.sentence
    return _NEEDS.get(release.phase, "")
