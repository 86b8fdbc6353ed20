"""What is broken now: each thing once, since when, and with a command that can be typed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from board.alert import Alert, Name, away_alert
from board.alerts import alerts_of
from board.reading import GuardNow, HealNow, MessagesNow, Source
from board.since import Since
from flows.cli.app import COMMAND_GROUPS
from handlers.environment.notification import Severity
from handlers.gate.values import Finding
from handlers.measurements.measurement import compared, ordered, source_down
from handlers.release.due import Care
from handlers.release.ledger.guards import Check, Guard, Kind
from handlers.release.ledger.heals import State
from handlers.release.ledger.troubles import Messages, Trouble
from handlers.release.phase import Phase
from handlers.release.topic import Topic
from handlers.status.view import ApprovalView, StartView
from handlers.zoho.runs import Kind as SyncKind
from handlers.zoho.runs import State as SyncState
from handlers.zoho.standing import Standing, Syncs
from tests.unit.board.readings import NOW, ago, environment, reading, release, run


def alerts(since: Since | None = None, **changes: Any) -> list[Alert]:
    """The alerts of a reading with these changes."""
    return alerts_of(reading(**changes), environment(), since or Since())


def names(**changes: Any) -> list[str]:
    """Their names."""
    return [alert.name for alert in alerts(**changes)]


def guard(**changes: Any) -> Guard:
    values: dict[str, Any] = {
        "release_id": "2026-01-02.1",
        "environment": "somewhere",
        "begun_at": ago(hours=1),
        "until": NOW,
        "pages_only_by": "",
        "pages_only": "",
        "ended_at": None,
        "ended_by": "",
        "ended": "",
        "claimed_by": "",
        "is_claimed": False,
    }
    return Guard(**values | changes)


def check(number: int, **changes: Any) -> Check:
    values: dict[str, Any] = {
        "id": number,
        "release_id": "2026-01-02.1",
        "number": number,
        "kind": Kind.LOOK,
        "due_at": ago(minutes=10),
        "taken_at": ago(minutes=9),
        "skipped": False,
        "finding": Finding.HEALTHY,
        "sentence": "97 of 97 completed",
    }
    return Check(**values | changes)


def trouble(topic: Topic, **changes: Any) -> Trouble:
    values: dict[str, Any] = {
        "topic": topic,
        "subject": "web-1",
        "release_id": "2026-01-02.1",
        "severity": Severity.PAGE,
        "sentence": "it does not answer",
        "since": ago(minutes=7),
    }
    return Trouble(**values | changes)


def sync(**changes: Any) -> Standing:
    values: dict[str, Any] = {
        "kind": SyncKind.FULL,
        "state": SyncState.RUNNING,
        "sentence": "",
        "started_at": ago(hours=2),
        "beat_at": ago(hours=1),
        "is_carried": True,
        "done_at": None,
    }
    return Standing(**values | changes)


def told(*troubles: Trouble, **messages: Any) -> MessagesNow:
    return MessagesNow(troubles=list(troubles), messages=Messages(**messages))


APPROVAL = ApprovalView(
    needed=1,
    given=(),
    until=NOW,
    starts=True,
    progress="0 of 1",
    whom="ops-b can approve it",
    command="runbook approve 2026-01-02.1 -e somewhere --plan abc --reason REASON",
)
BROKEN = compared("oldest", 600.0, 300.0, "s", "the oldest due event waits 600 s")


def test_what_is_well_has_no_alert() -> None:
    """Nothing is made up."""
    assert names() == []
    for phase in set(Phase) - {Phase.HELD, Phase.ROLLBACK_FAILED, Phase.ROLLING_BACK}:
        assert names(release=release(phase)) == [], phase


def test_a_release_that_a_person_holds_up_pages() -> None:
    """Since its phase began, in real time also in a rehearsal."""
    held = release(Phase.HELD, release=run(Phase.HELD, speed=60.0), running_seconds=3600.0)
    [alert] = alerts(release=held)
    assert (alert.name, alert.severity, alert.since) == (Name.RELEASE_HELD, Severity.PAGE, ago(minutes=1))
    assert alert.since_is_of == "ledger"


def test_a_plan_that_waits_for_approval_says_who_can_approve_it() -> None:
    """Not once nobody needs to any more."""
    [alert] = alerts(release=release(Phase.PLANNED, start=StartView(approval=APPROVAL)))
    assert (alert.name, alert.severity) == (Name.APPROVAL_WAITS, Severity.WARNING)
    assert "ops-b" in alert.sentence
    assert names(release=release(Phase.PLANNED, start=StartView(approval=replace(APPROVAL, whom="")))) == []


def test_a_hold_that_ends_by_itself_is_none_until_nobody_carries_it() -> None:
    """A database that was away holds a release, which goes on; the timer that should do it does not run."""
    waits = release(Phase.HELD, carried=False)
    assert names(release=waits) == []
    care = Care(
        release=run(Phase.HELD), carried=False, due=True, since=ago(minutes=5), sentence="nobody carries this"
    )
    [alert] = alerts(release=release(Phase.HELD, carried=False, neglected=care))
    assert (alert.name, alert.since) == (Name.RELEASE_UNCARRIED, ago(minutes=5))
    assert alert.next[0].startswith("runbook resume --due -e somewhere")


def test_a_rollback_is_told_while_it_runs_and_when_it_failed() -> None:
    """The first is a warning, the second a page."""
    [alert] = alerts(release=release(Phase.ROLLING_BACK, running_seconds=60.0))
    assert (alert.name, alert.severity, alert.since) == (Name.ROLLING_BACK, Severity.WARNING, ago(minutes=1))
    failed = run(Phase.ROLLBACK_FAILED, finished_at=ago(minutes=3))
    [alert] = alerts(release=release(Phase.ROLLBACK_FAILED, release=failed))
    assert (alert.name, alert.severity, alert.since) == (Name.ROLLBACK_FAILED, Severity.PAGE, ago(minutes=3))


def test_a_guard_that_nobody_takes_and_one_that_found_a_breach() -> None:
    """Not after its end."""
    late = [check(1), check(2, taken_at=None, finding=None, due_at=ago(minutes=6))]
    [alert] = alerts(guard=GuardNow(guard=guard(), checks=late, overdue="nobody takes the checks"))
    assert (alert.name, alert.since) == (Name.GUARD_OVERDUE, ago(minutes=6))
    sick = [check(1), check(2, finding=Finding.UNHEALTHY)]
    assert names(guard=GuardNow(guard=guard(), checks=sick)) == [Name.GUARD_BREACH]
    assert names(guard=GuardNow(guard=guard(), checks=[*sick, check(3)])) == []
    assert names(guard=GuardNow(guard=guard(ended_at=NOW), checks=sick, overdue="x")) == []


def test_a_broken_bar_is_a_warning_and_a_page_where_it_acts() -> None:
    """The sentence has the numbers."""
    [alert] = alerts(checks=[BROKEN])
    assert (alert.name, alert.subject, alert.severity) == (Name.CHECK_BROKEN, "oldest", Severity.WARNING)
    acting = environment(bars={"roll_back": ["oldest"]})
    [alert] = alerts_of(reading(checks=ordered(acting, [BROKEN])), acting, Since())
    assert alert.severity is Severity.PAGE
    assert "600 s" in alert.sentence


def test_what_cannot_be_read_is_an_alert_of_its_own() -> None:
    """A check and a source; never silence."""
    [alert] = alerts(checks=[source_down("stuck", "not within 4 s")])
    assert (alert.name, alert.subject, alert.severity) == (Name.SOURCE_DOWN, "stuck", Severity.PAGE)
    [alert] = alerts(queue=None, down={Source.QUEUE: "not within 4 s"})
    assert (alert.name, alert.subject) == (Name.SOURCE_DOWN, "queue")
    everything = {source: "away" for source in Source}
    lost = dict.fromkeys(
        ("queue", "checks", "times", "workers", "release", "guard", "syncs", "heal", "messages")
    )
    assert len(alerts(down=everything, **lost)) == len(Source)


def test_since_is_the_ledgers_where_people_were_told() -> None:
    """Otherwise this board's own first look, which is said."""
    watching = release(Phase.WATCHING)
    broken = trouble(Topic.CHECK_BROKEN, subject="oldest", since=ago(minutes=20))
    [alert] = alerts(release=watching, checks=[BROKEN], messages=told(broken))
    assert (alert.since, alert.since_is_of) == (ago(minutes=20), "ledger")
    seen = Since()
    seen.of({"check-broken oldest"}, ago(minutes=4))
    [alert] = alerts(seen, checks=[BROKEN])
    assert (alert.since, alert.since_is_of) == (ago(minutes=4), "board")


def test_what_was_told_of_an_old_release_is_over() -> None:
    """A trouble of the watch ends with its release, though nobody has told of its end."""
    messages = told(trouble(Topic.NOT_ARMED))
    assert names(release=release(Phase.WATCHING), messages=messages) == [Name.AROUND]
    assert names(release=release(Phase.SUCCEEDED), messages=messages) == []
    guarded = GuardNow(guard=guard(), checks=[check(1)])
    assert names(guard=guarded, messages=messages) == [Name.AROUND]
    assert names(release=release(Phase.WATCHING), messages=told(trouble(Topic.HELD))) == []


def test_a_sync_that_nobody_carries_is_told_and_one_that_waits_is_not() -> None:
    """One that was killed still says that it runs."""
    assert names(syncs=Syncs(newest=(sync(is_carried=False),))) == [Name.SYNC_STOPPED]
    assert names(syncs=Syncs(newest=(sync(state=SyncState.STOPPED),))) == [Name.SYNC_STOPPED]
    for state in (SyncState.WAITING, SyncState.DONE, SyncState.REPLACED):
        assert names(syncs=Syncs(newest=(sync(state=state, is_carried=False),))) == []


def test_healing_that_has_stopped_is_told_and_one_that_was_never_set_up_is_not() -> None:
    """Four runs missed; where it is switched off, nobody waits for it."""
    stopped = HealNow(state=State(ran_at=ago(minutes=61)))
    [alert] = alerts(heal=stopped)
    assert (alert.name, alert.since) == (Name.HEAL_OVERDUE, ago(minutes=46))
    assert names(heal=HealNow(state=State(ran_at=ago(minutes=59)))) == []
    assert names(heal=HealNow()) == []
    off = environment(heal={"active": False})
    assert alerts_of(reading(heal=stopped), off, Since()) == []


def test_messages_that_reach_nobody_are_told_here() -> None:
    """By chat it could not be said."""
    given_up = told(given_up=2, answer="HTTP 404", given_up_at=ago(hours=1))
    assert names(messages=given_up) == [Name.MESSAGES_GIVEN_UP]
    assert names(messages=told(waiting=1, waiting_since=ago(minutes=9))) == []
    assert names(messages=told(waiting=1, waiting_since=ago(minutes=11))) == [Name.MESSAGES_WAIT]


def test_pages_come_first() -> None:
    """Whoever reads one line reads the most urgent one."""
    found = alerts(checks=[BROKEN], release=release(Phase.HELD), messages=told(given_up=1))
    assert [alert.severity for alert in found] == [Severity.PAGE, Severity.WARNING, Severity.WARNING]


def test_every_next_step_is_a_command_of_ours() -> None:
    """It can be typed as it stands."""
    late = [check(1, finding=Finding.UNHEALTHY), check(2, taken_at=None, finding=None)]
    care = Care(release=run(Phase.HELD), carried=False, due=True, since=ago(minutes=5))
    found = [
        away_alert("somewhere", "it does not answer", None),
        *alerts(
            release=release(Phase.HELD, neglected=care, taken_back="web-1 went back"),
            guard=GuardNow(guard=guard(), checks=late, overdue="nobody takes the checks"),
            checks=[BROKEN, source_down("stuck", "x")],
            down={Source.WORKERS: "x"},
            syncs=Syncs(newest=(sync(is_carried=False),)),
            heal=HealNow(state=State(ran_at=ago(hours=2))),
            messages=told(trouble(Topic.NOT_ARMED), given_up=1, waiting=1, waiting_since=ago(hours=1)),
        ),
        *alerts(release=release(Phase.PLANNED, start=StartView(approval=APPROVAL))),
        *alerts(release=release(Phase.ROLLBACK_FAILED)),
        *alerts(release=release(Phase.ROLLING_BACK)),
    ]
    assert {alert.name for alert in found} == set(Name)
    known = {name for group in COMMAND_GROUPS.values() for name in group}
    for alert in found:
        assert alert.next, alert.name
        for step in alert.next:
            command = re.match(r"runbook ([a-z-]+) .*-e somewhere.* – .+", step)
            assert command is not None, step
            assert command[1] in known, step


@pytest.mark.parametrize("at", [ago(minutes=1), None])
def test_the_memory_of_a_trouble_ends_with_it(at: Any) -> None:
    """The next time it is a new one; an older look changes nothing."""
    seen = Since()
    seen.of({"a"}, ago(minutes=9))
    seen.of({"a", "b"}, ago(minutes=5))
    seen.of(set(), ago(minutes=7))
    assert seen.first("a") == ago(minutes=9)
    seen.of({"b"}, ago(minutes=4))
    assert seen.first("a") is None
    seen.of({"a", "b"}, at)
    assert seen.first("b") == ago(minutes=5)
    assert seen.first("a") == (at or ago(minutes=4))
