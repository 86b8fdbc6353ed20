"""What is broken now: since when, the sentence about it, and what to type. Pure, but for the memory of `Since`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from board.alert import BOARD, Alert, Name, alert
from board.reading import Reading
from board.since import Since
from handlers.environment.load import env_option
from handlers.environment.model import Environment
from handlers.environment.notification import Severity
from handlers.gate.values import Finding
from handlers.measurements.measurement import Action, Measurement, State
from handlers.release.ledger.troubles import Trouble
from handlers.release.phase import LIVE, Phase
from handlers.release.topic import Topic
from handlers.report.verdict import steps_for
from handlers.status.view import StatusView
from handlers.zoho.runs import State as SyncState

HEAL_EVERY, UNHEALED = timedelta(minutes=15), timedelta(hours=1)
WAITING = timedelta(minutes=10)
"""A message that waits longer than this does not reach people."""


_RANK = {Severity.PAGE: 0, Severity.WARNING: 1, Severity.INFO: 2}
_TOLD = frozenset(
    {
        *(Topic.NOT_BACK, Topic.NOT_ARMED, Topic.SOURCE_DOWN, Topic.CHECK_BROKEN, Topic.MACHINE_BROKEN),
        *(Topic.UPSTREAM_AWAY, Topic.BREACH),
    }
)
"""Troubles that only the ledger knows of. What else it tells is seen in the release itself."""


def alerts_of(now: Reading, environment: Environment, since: Since) -> list[Alert]:
    """The alerts of a reading, the most urgent first."""
    found = [
        *_release(now),
        *_guard(now),
        *_checks(now, environment),
        *_sources(now),
        *_told(now),
        *_heal(now, environment),
        *_syncs(now),
        *_messages(now),
    ]
    found = list({each.key: each for each in reversed(found)}.values())
    since.of({each.key for each in found if each.since is None}, now.at)
    dated = [each if each.since is not None else _seen(each, since) for each in found]
    return sorted(dated, key=lambda each: (_RANK[each.severity], each.key))


def _seen(undated: Alert, since: Since) -> Alert:
    return replace(undated, since=since.first(undated.key), since_is_of=BOARD)


def _release(now: Reading) -> Iterator[Alert]:
    env = env_option(now.environment)
    if now.release is None:
        return
    view, care = now.release.view, now.release.neglected
    if care is not None:
        run = care.release
        yield alert(
            Name.RELEASE_UNCARRIED,
            Severity.PAGE,
            f"release {run.id} is {run.phase}, and due: {care.sentence}",
            f"runbook resume --due {env} – continues it; a timer must run this each minute",
            since=care.due_at or care.since,
        )
    if view.release is None:
        return
    run, status = view.release, f"runbook status {env} – what it waits for"
    if view.taken_back:
        yield alert(
            Name.LEDGER_BEHIND,
            Severity.PAGE,
            view.taken_back,
            f"runbook rollback {env} --reason REASON – records that the hosts are back",
        )
    match run.phase:
        case Phase.PLANNED if view.start and view.start.approval and view.start.approval.whom:
            waits = view.start.approval
            yield alert(
                Name.APPROVAL_WAITS,
                Severity.WARNING,
                f"release {run.id} waits for approval, {waits.progress}: {waits.whom}",
                f"runbook plan --release {run.id} {env} – read the plan",
                f"{waits.command} – approves exactly this plan",
                since=run.created_at,
            )
        # One that goes on by itself is no alert, until nobody carries it.
        case Phase.HELD if view.carried is None:
            yield alert(
                Name.RELEASE_HELD,
                Severity.PAGE,
                f"release {run.id} is held: {run.reason}",
                status,
                f"runbook resume {env} --reason REASON – goes on where it stopped",
                f"runbook rollback {env} --reason REASON – goes back to the previous revision",
                since=_phase_began(view),
            )
        case Phase.ROLLBACK_FAILED:
            missing = ", ".join(host.name for host in view.returns if not host.back)
            yield alert(
                Name.ROLLBACK_FAILED,
                Severity.PAGE,
                f"release {run.id} is not back on {missing or 'every host'}: {run.reason}",
                status,
                f"runbook rollback {env} --reason REASON – tries the hosts again that are not back",
                since=run.finished_at,
            )
        case Phase.ROLLING_BACK:
            yield alert(
                Name.ROLLING_BACK,
                Severity.WARNING,
                f"release {run.id} goes back: {run.reason}",
                f"runbook status --watch {env} – how far each host is",
                since=_phase_began(view),
            )
        case _:
            return


def _phase_began(view: StatusView) -> datetime | None:
    if view.running_seconds is None or view.release is None:
        return None
    return view.at - timedelta(seconds=view.running_seconds / view.release.speed)


def _guard(now: Reading) -> Iterator[Alert]:
    env = env_option(now.environment)
    if now.guard is None or now.guard.guard is None or now.guard.guard.ended_at is not None:
        return
    guard, checks = now.guard.guard, now.guard.checks
    if now.guard.overdue:
        due = [check.due_at for check in checks if check.taken_at is None]
        yield alert(
            Name.GUARD_OVERDUE,
            Severity.PAGE,
            f"release {guard.release_id} is not guarded: {now.guard.overdue}",
            f"runbook guard --due {env} – takes them; a timer must run this each minute",
            since=min(due, default=None),
        )
    taken = [check for check in checks if check.taken_at is not None and not check.skipped and check.finding]
    if taken and taken[-1].finding is Finding.UNHEALTHY:
        yield alert(
            Name.GUARD_BREACH,
            Severity.PAGE,
            f"the newest check of release {guard.release_id} is UNHEALTHY: {taken[-1].sentence}",
            f"runbook guard {env} – all its checks",
            f"runbook rollback {env} --reason REASON – where the guard only pages, you decide",
            since=taken[-1].taken_at,
        )


def _checks(now: Reading, environment: Environment) -> Iterator[Alert]:
    told = {trouble.subject: trouble.since for trouble in _troubles(now)}
    for check in now.checks or []:
        if check.state not in (State.BROKEN, State.SOURCE_DOWN):
            continue
        is_broken = check.state is State.BROKEN
        severity = Severity.WARNING if is_broken and check.action is Action.SHOW else Severity.PAGE
        yield alert(
            Name.CHECK_BROKEN if is_broken else Name.SOURCE_DOWN,
            severity,
            f"{check.key}: {check.sentence}",
            *_steps(environment.name, check),
            subject=check.key,
            since=told.get(check.key),
        )


def _steps(name: str, check: Measurement) -> tuple[str, ...]:
    env = env_option(name)
    if check.state is State.SOURCE_DOWN:
        return (f"runbook doctor {env} – privileges, and what the database lacks",)
    return steps_for(name, [check])


def _sources(now: Reading) -> Iterator[Alert]:
    env = env_option(now.environment)
    for source, why in now.down.items():
        yield alert(
            Name.SOURCE_DOWN,
            Severity.PAGE,
            f"the {source} could not be read: {why}",
            f"runbook doctor {env} – privileges, and what the database lacks",
            subject=source,
        )


def _troubles(now: Reading) -> list[Trouble]:
    """What people were told of and is not over, about the release that runs or is guarded."""
    if now.messages is None:
        return []
    current = set()
    if now.release is not None and now.release.view.release is not None:
        run = now.release.view.release
        current |= {run.id} if run.phase in LIVE or run.phase is Phase.ROLLBACK_FAILED else set()
    if now.guard is not None and now.guard.guard is not None and now.guard.guard.ended_at is None:
        current.add(now.guard.guard.release_id)
    return [each for each in now.messages.troubles if each.release_id in current]


def _told(now: Reading) -> Iterator[Alert]:
    env = env_option(now.environment)
    seen = {check.key for check in now.checks or []}
    for trouble in _troubles(now):
        # What the board measures itself is as it is now.
        if trouble.topic in _TOLD and trouble.subject not in seen:
            yield alert(
                Name.AROUND,
                trouble.severity,
                f"{trouble.topic}: {trouble.sentence}",
                f"runbook status {env} – what is around the release now",
                f"runbook check {env} – each host, its units, disk and health answer",
                subject=f"{trouble.topic} {trouble.subject}".rstrip(),
                since=trouble.since,
            )


def _heal(now: Reading, environment: Environment) -> Iterator[Alert]:
    """Healing that has run before and does not any more. One that never ran may not be set up."""
    ran_at = now.heal.state.ran_at if now.heal is not None else None
    if environment.heal.active and ran_at is not None and now.at - ran_at > UNHEALED:
        yield alert(
            Name.HEAL_OVERDUE,
            Severity.WARNING,
            f"healing has not run for {(now.at - ran_at).total_seconds() / 60:.0f} min; it is due every 15",
            f"runbook heal --dry-run {env_option(now.environment)} – what it would do; a timer must run it",
            since=ran_at + HEAL_EVERY,
        )


def _syncs(now: Reading) -> Iterator[Alert]:
    env = env_option(now.environment)
    for sync in now.syncs.newest if now.syncs is not None else ():
        died = sync.state is SyncState.RUNNING and not sync.is_carried
        if died or sync.state is SyncState.STOPPED:
            what = "its process has ended" if died else sync.sentence or "it was stopped"
            yield alert(
                Name.SYNC_STOPPED,
                Severity.WARNING,
                f"the sync ({sync.kind}) is not done, and nobody carries it: {what}",
                f"runbook sync {sync.kind} {env} – goes on where it was",
                subject=sync.kind,
                since=sync.beat_at,
            )


def _messages(now: Reading) -> Iterator[Alert]:
    env = env_option(now.environment)
    if now.messages is None:
        return
    messages = now.messages.messages
    if messages.given_up:
        yield alert(
            Name.MESSAGES_GIVEN_UP,
            Severity.WARNING,
            f"{messages.given_up} messages of the last day reached nobody: {messages.answer}",
            f"runbook notify list {env} – what was given up, and why",
            f"runbook notify test {env} – tries each address",
            since=messages.given_up_at,
        )
    waits = now.at - messages.waiting_since if messages.waiting_since is not None else timedelta()
    if waits > WAITING:
        yield alert(
            Name.MESSAGES_WAIT,
            Severity.WARNING,
            f"{messages.waiting} messages wait, the oldest for {waits.total_seconds() / 60:.0f} min",
            f"runbook notify --due {env} – sends what is due; the timers do it each minute",
            since=messages.waiting_since,
        )
