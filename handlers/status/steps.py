"""The phases of a release as the steps of the status view, each with its duration and its hosts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from handlers.release.ledger.releases import PhaseRecord
from handlers.release.phase import FINISHED, LIVE, Phase, Release, Verdict, short
from handlers.release.planned import Plan
from handlers.status.host_tree import Operation, host_tree
from handlers.status.view import ReturnView, StepState, StepView

STEPS: dict[str, Phase] = {
    "plan": Phase.PLANNED,
    "approval": Phase.APPROVED,
    "deploy": Phase.DEPLOYING,
    "probe": Phase.PROBING,
    "canary": Phase.CANARY,
    "drain": Phase.DRAINING,
    "watch": Phase.WATCHING,
}
"""The phases of a successful release, by their names in the view."""

BACK = frozenset({Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED})
"""A release in one of them is on its way back, or has come to its end."""

DOING = {
    Phase.DEPLOYING: "changing the hosts, one first, then the others",
    Phase.PROBING: "probing every host until its answers are good",
    Phase.CANARY: "following one event until it settles",
    Phase.DRAINING: "waiting for the first batch to settle",
    Phase.WATCHING: "waiting for the first measurement of live traffic",
    Phase.ROLLING_BACK: "activating the previous revision on every host",
}
"""The sentence of a running phase that has not stored one yet: without it the release would look stuck."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the steps are made of. Durations of what runs are counted until *until*."""

    release: Release
    records: Sequence[PhaseRecord]
    plan: Plan
    operations: Sequence[Operation]
    until: datetime


def steps_of(known: Known) -> tuple[StepView, ...]:
    """The phases of a release with their state, and its rollback. A phase by hand has only its own."""
    release = known.release
    newest = {record.phase: record for record in known.records}
    rollback = newest.get(Phase.ROLLING_BACK)
    views = []
    pending = StepState.NEXT
    for name, phase in STEPS.items():
        if phase not in {Phase.PLANNED, Phase.APPROVED, *known.plan.scope}:
            # By hand: this phase is passed, and nothing is done in it.
            continue
        record = newest.get(phase)
        if record is not None:
            views.append(_step(name, record, known))
        elif release.phase not in FINISHED and rollback is None:
            usual = usual_seconds(known, phase)
            views.append(
                StepView(name=name, state=pending, at=None, sentence="", phase=phase, usual_seconds=usual)
            )
            pending = StepState.LATER
    if rollback is not None:
        views.append(_step("rollback", rollback, known))
    elif release.phase in LIVE and release.from_revision != release.to_revision:
        views.append(_armed(known))
    return tuple(views)


def usual_seconds(known: Known, phase: Phase) -> float | None:
    """Real seconds that a phase takes usually; None without an earlier release."""
    if phase is Phase.ROLLING_BACK:
        back = known.plan.usual_steps.rollback
        return back.usual if back else None
    usual = known.plan.usual
    span = usual.phases.get(phase) if usual else None
    return round(span.usual / known.release.speed, 1) if span else None


def stayed_seconds(known: Known, phase: Phase) -> float:
    """Real seconds that the release has been in a phase, all stays together."""
    return round(
        sum(
            max(0.0, ((record.finished_at or known.until) - record.started_at).total_seconds())
            for record in known.records
            if record.phase is phase
        ),
        1,
    )


def _step(name: str, record: PhaseRecord, known: Known) -> StepView:
    if record.finished_at is None:
        state = StepState.RUNNING
        sentence = record.note.looked or record.sentence or DOING.get(record.phase, "")
    else:
        states = {Verdict.FAIL: StepState.FAILED, Verdict.INCONCLUSIVE: StepState.HELD}
        state = states.get(record.verdict, StepState.DONE) if record.verdict else StepState.DONE
        sentence = record.sentence
    return StepView(
        name=name,
        state=state,
        at=record.finished_at or record.started_at,
        sentence=sentence,
        phase=record.phase,
        started_at=record.started_at,
        seconds=stayed_seconds(known, record.phase),
        usual_seconds=usual_seconds(known, record.phase),
        hosts=host_tree(record, known.operations, known.plan, known.until),
    )


def _armed(known: Known) -> StepView:
    """The rollback that is ready, with what the hosts said about its target at the newest look."""
    checks = [record.note.armed for record in known.records if record.note.armed is not None]
    sentence = f"to {short(known.release.from_revision)}"
    usual = usual_seconds(known, Phase.ROLLING_BACK)
    if not checks:
        return StepView(
            name="rollback", state=StepState.ARMED, at=None, sentence=sentence, usual_seconds=usual
        )
    newest = checks[-1]
    return StepView(
        name="rollback",
        state=StepState.ARMED if newest.ok else StepState.FAILED,
        at=newest.at,
        sentence=f"{sentence}, {newest.sentence}",
        usual_seconds=usual,
    )


def returns_of(release: Release, records: Sequence[PhaseRecord]) -> tuple[ReturnView, ...]:
    """The newest note about each host's way back, while not every host is back."""
    if release.phase not in (Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED):
        return ()
    rollbacks = [record for record in records if record.phase is Phase.ROLLING_BACK]
    notes = rollbacks[-1].note.returns or {} if rollbacks else {}
    return tuple(
        ReturnView(
            name=name,
            back=note.back,
            revision=note.revision,
            units=note.units,
            operation=note.operation,
            tries=note.tries,
            sentence=note.sentence,
            seen_at=note.seen_at,
        )
        for name, note in sorted(notes.items())
    )
