"""The status of a release, for people: wanted and actual revisions, steps, and what it waits for. Read-only.

A running phase stores its progress in its record with `releases.note`: the health of the hosts, the newest sentence,
the time of the next measurement, and the length of the watch.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.environment import frozen
from handlers.environment.load import load_environment
from handlers.errors import ConfigError, Refused
from handlers.queue.limits import limits
from handlers.release import due, journal, left_behind, lock
from handlers.release.due import Care
from handlers.release.ledger import dead_letters, releases
from handlers.release.ledger.records import Stretch, stretches
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.lock import Holder
from handlers.release.note import HostNote, NextLook
from handlers.release.phase import FINISHED, LIVE, Phase, Release, Verdict, short
from handlers.release.planned import Plan
from handlers.release.settings import stored_settings
from handlers.status.guard_step import guard_steps
from handlers.status.view import HostStepView, HostView, ReturnView, StatusView, StepState, StepView

SQL = queries(__name__)

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

_BACK = frozenset({Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED})

_ROLLBACK_ENDED = _BACK - {Phase.ROLLING_BACK}

_DOING = {
    Phase.DEPLOYING: "changing the hosts, one first, then the others",
    Phase.PROBING: "probing every host until its answers are good",
    Phase.CANARY: "following one event until it settles",
    Phase.DRAINING: "waiting for the first batch to settle",
    Phase.WATCHING: "waiting for the first measurement of live traffic",
    Phase.ROLLING_BACK: "activating the previous revision on every host",
}
"""The sentence of a running phase that has not stored one yet: without it the release would look stuck."""

_NEEDS: dict[Phase, str] = {
    Phase.PLANNED: "nobody has started it: `runbook resume` does, `runbook abort` ends it",
    Phase.HELD: "a person decides: `runbook resume`, `runbook rollback` or `runbook abort`",
    Phase.ROLLBACK_FAILED: "a person looks at the hosts that are not back, then `runbook rollback` goes on",
    Phase.REFUSED: "fix the problem above, then run `runbook plan` again",
}


async def read(engine: AsyncEngine, environment: str, release_id: str | None = None) -> StatusView:
    """The status of a release: the one named, otherwise the live one, otherwise the newest of the environment.

    Raises Refused when the release is unknown or belongs to another environment.
    """
    async with transaction(engine) as tx:
        await tx.execute(SQL["begin_snapshot"])
        at: datetime = (await tx.execute(SQL["now"])).scalar_one()
        holder = await lock.holder(tx, environment)
        if release_id is None:
            release = await releases.live(tx, environment) or await releases.latest(tx, environment)
            if release is None:
                return StatusView(environment=environment, at=at, release=None, lock=holder)
        else:
            release = await releases.get(tx, release_id)
        if release.environment != environment:
            raise Refused(f"release {release_id} belongs to {release.environment}, not to {environment}")
        return await _view(tx, release, at, holder)


async def _view(tx: AsyncConnection, release: Release, at: datetime, holder: Holder | None) -> StatusView:
    records = await releases.phase_records(tx, release)
    judged = await stretches(tx, release)
    plan = await releases.plan(tx, release.id)
    progress = (await tx.execute(SQL["progress"], {"release_id": release.id})).one()
    current = records[-1]
    next_look = current.note.next or NextLook()
    care = await due.care(tx, release)
    return StatusView(
        environment=release.environment,
        at=at,
        release=release,
        why=_why(release, current, judged),
        need=_need(release, care),
        next_what=next_look.what,
        # Nobody keeps the appointment of a controller that died.
        next_at=None if care.carried is False else next_look.at,
        running_seconds=_running_seconds(release, current, care, at),
        window_seconds=current.note.window_seconds,
        hosts=_hosts(release, records, plan),
        host_steps=await _host_steps(tx, release, current),
        returns=_returns(release, records),
        lock=holder,
        carried=care.carried,
        uncarried_since=care.since,
        care=care.sentence,
        due=care.due,
        around=releases.around(records),
        limits=tuple(await limits(tx)) if release.phase in LIVE else (),
        steps=(*_steps(release, records), *await guard_steps(tx, release, at)),
        batches=tuple(await dead_letters.batches(tx, release)),
        events_planned=progress.planned,
        events_settled=progress.settled,
        events_set_aside=sum(releases.set_aside(records).values()),
        differences=_differences(release, await stored_settings(tx, release)),
        findings=_findings(judged),
        taken_back=_taken_back(release, records),
        left_behind=await left_behind.kinds(tx, release) if release.phase in _ROLLBACK_ENDED else (),
    )


def _running_seconds(release: Release, current: PhaseRecord, care: Care, at: datetime) -> float | None:
    """Runbook seconds of the running phase, until the last sign of a controller that died.

    Of a watch the time counts in which a controller watched.
    """
    if release.phase in FINISHED:
        return None
    if care.carried is False and care.since is not None:
        at = max(current.started_at, min(at, care.since))
    note = current.note
    if note.watched_seconds is None or note.watched_at is None:
        return (at - current.started_at).total_seconds() * release.speed
    until = min(at, note.next.at) if note.next and note.next.at else at
    return note.watched_seconds + max(0.0, (until - note.watched_at).total_seconds()) * release.speed


def _findings(judged: list[Stretch]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for stretch in judged:
        counts[str(stretch.finding)] += stretch.number
    return dict(counts)


def _why(release: Release, current: PhaseRecord, judged: list[Stretch]) -> str:
    """The newest judgement of the running phase, otherwise its progress.

    For an ended, held or rolling back release it is the conclusion of the phase before, which is the cause.
    """
    own = [
        record for record in judged if record.until >= current.started_at and record.phase is release.phase
    ]
    if own:
        return own[-1].sentence
    if release.phase in LIVE - {Phase.HELD, Phase.ROLLING_BACK}:
        return current.note.looked or _DOING.get(release.phase, "")
    return "" if release.phase in (Phase.PLANNED, Phase.APPROVED) else release.reason


def _need(release: Release, care: Care) -> str:
    if care.carried is False and release.phase is not Phase.ROLLBACK_FAILED:
        return ""
    if release.phase is Phase.HELD and release.from_revision == release.to_revision:
        return "a person decides: `runbook resume` or `runbook abort`; nothing was deployed"
    return _NEEDS.get(release.phase, "")


def _taken_back(release: Release, records: list[PhaseRecord]) -> str:
    """That hosts went back while the ledger was away, which has not been told yet."""
    if release.phase not in LIVE | {Phase.SUCCEEDED, Phase.ROLLBACK_FAILED}:
        return ""
    found = journal.newest(release.id)
    told = [record.started_at for record in records if record.phase is Phase.ROLLING_BACK]
    return found.sentence if found and not any(at > found.begun_at for at in told) else ""


def _differences(release: Release, settings: dict[str, Any] | None) -> tuple[str, ...]:
    """How the environment file differs from the settings of a release that may still use them."""
    if not settings or (release.phase in FINISHED and release.phase is not Phase.ROLLBACK_FAILED):
        return ()
    waits = release.phase in (Phase.PLANNED, Phase.APPROVED)
    words = {"keeper": "the plan", "keeps": "has"} if waits else {}
    try:
        return tuple(frozen.differences(settings, load_environment(release.environment), **words))
    except ConfigError as error:
        fault = str(error).replace("\n", "; ")
        return (f"{fault}. This release goes on with its own settings",)


def _steps(release: Release, records: list[PhaseRecord]) -> tuple[StepView, ...]:
    newest = {record.phase: record for record in records}
    rollback = newest.get(Phase.ROLLING_BACK)
    views = []
    pending = StepState.NEXT
    for name, phase in STEPS.items():
        record = newest.get(phase)
        if record is not None:
            views.append(_step(name, record))
        elif release.phase not in FINISHED and rollback is None:
            views.append(StepView(name=name, state=pending, at=None, sentence=""))
            pending = StepState.LATER
    if rollback is not None:
        views.append(_step("rollback", rollback))
    elif release.phase in LIVE and release.from_revision != release.to_revision:
        views.append(_armed(release, records))
    return tuple(views)


def _step(name: str, record: PhaseRecord) -> StepView:
    at = record.finished_at or record.started_at
    if record.finished_at is None:
        sentence = record.note.looked or record.sentence or _DOING.get(record.phase, "")
        return StepView(name=name, state=StepState.RUNNING, at=at, sentence=sentence)
    states = {Verdict.FAIL: StepState.FAILED, Verdict.INCONCLUSIVE: StepState.HELD}
    state = states.get(record.verdict, StepState.DONE) if record.verdict else StepState.DONE
    return StepView(name=name, state=state, at=at, sentence=record.sentence)


def _armed(release: Release, records: list[PhaseRecord]) -> StepView:
    """The rollback that is ready, with what the hosts said about its target at the newest look."""
    checks = [record.note.armed for record in records if record.note.armed is not None]
    sentence = f"to {short(release.from_revision)}"
    if not checks:
        return StepView(name="rollback", state=StepState.ARMED, at=None, sentence=sentence)
    newest = checks[-1]
    return StepView(
        name="rollback",
        state=StepState.ARMED if newest.ok else StepState.FAILED,
        at=newest.at,
        sentence=f"{sentence}, {newest.sentence}",
    )


async def _host_steps(
    tx: AsyncConnection, release: Release, current: PhaseRecord
) -> tuple[HostStepView, ...]:
    """How far each host is, while the hosts are being changed."""
    if release.phase not in (Phase.DEPLOYING, Phase.ROLLING_BACK):
        return ()
    values = {"release_id": release.id, "phase": release.phase, "since": current.started_at}
    return tuple(
        HostStepView(
            name=row.host,
            step=row.kind.removeprefix("back-"),
            outcome=row.outcome,
            started_at=row.started_at,
        )
        for row in await tx.execute(SQL["host_steps"], values)
    )


def _returns(release: Release, records: list[PhaseRecord]) -> tuple[ReturnView, ...]:
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


def _hosts(release: Release, records: list[PhaseRecord], plan: Plan) -> tuple[HostView, ...]:
    """The newest note about each host; before the first one, its state in the plan."""
    want = release.from_revision if release.phase in _BACK else release.to_revision
    notes = {host.name: HostNote(have=host.current) for host in plan.hosts}
    for record in records:
        notes |= record.note.hosts or {}
    return tuple(
        HostView(
            name=name,
            want=want,
            have=note.have,
            good=note.ok,
            note=note.note,
            seen_at=note.seen_at,
        )
        for name, note in sorted(notes.items())
    )
