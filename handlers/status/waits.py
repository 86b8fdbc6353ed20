"""What a release waits for now, and since when: while something waits, the view is never silent. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from handlers.release.due import Care
from handlers.release.ledger.dead_letters import Batch
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.phase import FINISHED, Phase, Release
from handlers.status.steps import DOING
from handlers.status.view import HostStep, HostTree, StepState, WaitView

_FLEET_MAX = 3
"""More hosts in the same step are counted."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a release stands."""

    release: Release
    record: PhaseRecord
    """Its newest stay in a phase."""
    hosts: Sequence[HostTree]
    """The steps of that phase on each host."""
    batches: Sequence[Batch]
    care: Care
    at: datetime


def waits_of(standing: Standing) -> tuple[WaitView, ...]:
    """What the release waits for; empty when it has ended and no person has to do anything."""
    phase, record, at = standing.release.phase, standing.record, standing.at
    if phase in FINISHED - {Phase.ROLLBACK_FAILED}:
        return ()
    if standing.care.carried is False and phase not in (Phase.PLANNED, Phase.APPROVED):
        return (_wait("a controller: nobody runs it", standing.care.since, at),)
    if phase in (Phase.DEPLOYING, Phase.PROBING, Phase.ROLLING_BACK):
        return _on_hosts(standing.hosts, at) or (_between(standing),)
    if phase in (Phase.CANARY, Phase.DRAINING):
        return (_batch(record, standing.batches, at),)
    if phase is Phase.WATCHING:
        return (_look(record, at),)
    return (_wait(_person(phase, record), record.started_at, at),)


def _person(phase: Phase, record: PhaseRecord) -> str:
    if phase is Phase.PLANNED and record.note.approval is not None:
        return "approval"
    return "its start" if phase in (Phase.PLANNED, Phase.APPROVED) else "a person to decide"


def _on_hosts(hosts: Iterable[HostTree], at: datetime) -> tuple[WaitView, ...]:
    """The steps that run now, those of the same kind and the same progress together."""
    together: dict[tuple[str, str], list[tuple[str, HostStep]]] = {}
    for host in hosts:
        for step in host.steps:
            if step.state is StepState.RUNNING:
                together.setdefault((step.step, step.sentence), []).append((host.host, step))
    found = []
    for (name, sentence), running in together.items():
        who = [host for host, _ in running]
        named = ", ".join(who) if len(who) <= _FLEET_MAX else f"{len(who)} hosts"
        since = min((step.started_at for _, step in running if step.started_at), default=None)
        usual = running[0][1].usual_seconds
        what = f"{name} of {named}{f' ({sentence})' if sentence else ''}"
        found.append(_wait(what, since, at, usual))
    return tuple(found)


def _between(standing: Standing) -> WaitView:
    """Nothing runs on a host at this moment: the controller is between two steps."""
    steps = [step for host in standing.hosts for step in host.steps]
    coming = [step.step for step in steps if step.state is StepState.NEXT]
    what = f"{coming[0]} to begin" if coming else DOING.get(standing.release.phase, "the next step")
    if not coming and steps and all(step.state is StepState.DONE for step in steps):
        what = "a look at all hosts together, and the conclusion"
    since = max((step.finished_at for step in steps if step.finished_at), default=standing.record.started_at)
    return _wait(what, since, standing.at)


def _batch(record: PhaseRecord, batches: Sequence[Batch], at: datetime) -> WaitView:
    """The batch that has not settled, an upstream that is away, or what comes before the first batch."""
    open_batches = [batch for batch in batches if batch.settled_at is None]
    since = max([record.started_at, *(batch.settled_at for batch in batches if batch.settled_at)])
    following = record.note.next
    if following is not None and following.at is not None and record.note.looked:
        return _wait(record.note.looked, since, at)
    if open_batches:
        batch = open_batches[-1]
        events = "1 event" if batch.size == 1 else f"{batch.size} events"
        which = "the canary" if batch.number == 0 else f"batch {batch.number}"
        return _wait(f"{which} to settle: {events}", batch.started_at, at)
    if record.phase is Phase.DRAINING:
        return _wait("the next batch", since, at)
    # The canary is number 0: once it has settled, its row is compared with the payload.
    return _wait("the row of the canary to be read" if batches else "the canary's event", since, at)


def _look(record: PhaseRecord, at: datetime) -> WaitView:
    """The next look of a watch, or one that should have come."""
    note, due = record.note, record.note.next.at if record.note.next else None
    if note.watched_at is None or due is None:
        return _wait("the first look at live traffic", record.started_at, at)
    if due <= at:
        return _wait("the look that is due", due, at)
    return _wait("the next look at live traffic", note.watched_at, at)


def _wait(what: str, since: datetime | None, at: datetime, usual: float | None = None) -> WaitView:
    seconds = round(max(0.0, (at - since).total_seconds()), 1) if since else None
    return WaitView(what=what, since=since, seconds=seconds, usual_seconds=usual)
