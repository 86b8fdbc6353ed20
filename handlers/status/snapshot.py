"""How a release stands, for people: what is wanted beside what is there, and why it waits. Reads only.

What the phases know while they run they put into their open record with `releases.note`; read here are the hosts
as last seen, the next look, the sentence of the last one, and how long the watch lasts.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.errors import Refused
from handlers.release import left_behind, lock
from handlers.release.ledger import dead_letters, releases
from handlers.release.ledger.records import JudgementRecord, judgements
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.lock import Holder
from handlers.release.note import HostNote, NextLook
from handlers.release.phase import FINISHED, LIVE, Phase, Release, Verdict, short
from handlers.release.planned import Plan
from handlers.status.view import HostView, StatusView, StepState, StepView

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
"""The way of a release that goes well, by the words that people use."""

_BACK = frozenset({Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED})

_LEFT = _BACK - {Phase.ROLLING_BACK}

_DOING = {
    Phase.DEPLOYING: "changing the hosts, one first, then the others",
    Phase.PROBING: "asking every host until its answers are good",
    Phase.CANARY: "following one dead letter to its end",
    Phase.DRAINING: "waiting for the first batch to settle",
    Phase.WATCHING: "waiting for the first look at live traffic",
    Phase.ROLLING_BACK: "bringing the revision before it back to every host",
}
"""What a running phase is busy with as long as it has told nothing itself: a wait without a word looks stuck."""

_NEEDS: dict[Phase, str] = {
    Phase.PLANNED: "the plan must be approved",
    Phase.HELD: "a person decides: runbook resume, runbook rollback or runbook abort",
    Phase.ROLLBACK_FAILED: "somebody must look at the hosts now: nothing automatic happens any more",
    Phase.REFUSED: "mend what the sentence above says, then make a new plan",
}


async def read(engine: AsyncEngine, environment: str, release_id: str | None = None) -> StatusView:
    """How the release named, else the live one, else the newest of the environment stands."""
    async with transaction(engine) as tx:
        await tx.execute(SQL["look_at_one_moment"])
        at: datetime = (await tx.execute(SQL["now"])).scalar_one()
        held = await lock.holder(tx, environment)
        if release_id is None:
            release_id = (await tx.execute(SQL["newest"], {"environment": environment})).scalar_one_or_none()
            if release_id is None:
                return StatusView(environment=environment, at=at, release=None, lock=held)
        release = await releases.get(tx, release_id)
        if release.environment != environment:
            raise Refused(f"release {release_id} belongs to {release.environment}, not to {environment}")
        return await _view(tx, release, at, held)


async def _view(tx: AsyncConnection, release: Release, at: datetime, held: Holder | None) -> StatusView:
    records = await releases.phase_records(tx, release)
    judged = await judgements(tx, release)
    plan = await releases.plan(tx, release.id)
    progress = (await tx.execute(SQL["progress"], {"release_id": release.id})).one()
    current = records[-1]
    coming = current.note.next or NextLook()
    return StatusView(
        environment=release.environment,
        at=at,
        release=release,
        why=_why(release, current, judged),
        need=_need(release),
        next_what=coming.what,
        next_at=coming.at,
        running_seconds=(
            None if release.phase in FINISHED else (at - current.started_at).total_seconds() * release.speed
        ),
        window_seconds=current.note.window_seconds,
        hosts=_hosts(release, records, plan),
        lock=held,
        steps=_steps(release, records),
        batches=tuple(await dead_letters.batches(tx, release)),
        events_planned=progress.planned,
        events_settled=progress.settled,
        findings=dict(Counter(str(one.finding) for one in judged)),
        left_behind=await left_behind.kinds(tx, release) if release.phase in _LEFT else (),
    )


def _why(release: Release, current: PhaseRecord, judged: list[JudgementRecord]) -> str:
    """The newest judgement of the running phase, else what it is busy with; of an end or a hold, what brought it there.

    What the phase before it came to explains no running phase, but a rollback, which it began.
    """
    fresh = [one for one in judged if one.taken_at >= current.started_at and one.phase is release.phase]
    if fresh:
        return fresh[-1].sentence
    if release.phase in LIVE - {Phase.HELD, Phase.ROLLING_BACK}:
        return current.note.looked or _DOING.get(release.phase, "")
    return "" if release.phase in (Phase.PLANNED, Phase.APPROVED) else release.reason


def _need(release: Release) -> str:
    if release.phase is Phase.HELD and release.from_revision == release.to_revision:
        return "a person decides: runbook resume or runbook abort; nothing was deployed"
    return _NEEDS.get(release.phase, "")


def _steps(release: Release, records: list[PhaseRecord]) -> tuple[StepView, ...]:
    newest = {record.phase: record for record in records}
    rolled = newest.get(Phase.ROLLING_BACK)
    views = []
    awaited = StepState.NEXT
    for name, phase in STEPS.items():
        record = newest.get(phase)
        if record is not None:
            views.append(_step(name, record))
        elif release.phase not in FINISHED and rolled is None:
            views.append(StepView(name=name, state=awaited, at=None, sentence=""))
            awaited = StepState.LATER
    if rolled is not None:
        views.append(_step("rollback", rolled))
    elif release.phase in LIVE and release.from_revision != release.to_revision:
        to = f"to {short(release.from_revision)}"
        views.append(StepView(name="rollback", state=StepState.ARMED, at=None, sentence=to))
    return tuple(views)


def _step(name: str, record: PhaseRecord) -> StepView:
    at = record.finished_at or record.started_at
    if record.finished_at is None:
        sentence = record.note.looked or record.sentence or _DOING.get(record.phase, "")
        return StepView(name=name, state=StepState.RUNNING, at=at, sentence=sentence)
    states = {Verdict.FAIL: StepState.FAILED, Verdict.INCONCLUSIVE: StepState.HELD}
    state = states.get(record.verdict, StepState.DONE) if record.verdict else StepState.DONE
    return StepView(name=name, state=state, at=at, sentence=record.sentence)


def _hosts(release: Release, records: list[PhaseRecord], plan: Plan) -> tuple[HostView, ...]:
    """Each host as last noted by any phase; before that, as the plan found it."""
    want = release.from_revision if release.phase in _BACK else release.to_revision
    seen = {host.name: HostNote(have=host.current) for host in plan.hosts}
    for record in records:
        seen |= record.note.hosts or {}
    return tuple(
        HostView(
            name=name,
            want=want,
            have=noted.have,
            good=noted.ok,
            note=noted.note,
            seen_at=noted.seen_at,
        )
        for name, noted in sorted(seen.items())
    )
