"""What a real queue adds to the streams: events that are deleted, pauses between attempts, named errors, slowness."""

from __future__ import annotations

import pytest

from handlers.gate.sequential import judge_rows
from handlers.gate.values import Finding
from tests.unit.gate.told import TYPES, Told, day

AFTER = {"left": -1.0}


def test_an_item_that_is_gone_is_neither_good_nor_bad() -> None:
    """Taken or waiting: a person deleted it, and nobody waits for it any more."""
    told = Told()
    for number in range(9):
        told.tell("gone", 20, id=told.admit(1))
        told.tell("gone", 20, id=told.queued(number))
    found = told.gate.verdict(900, **AFTER)
    assert found.finding is Finding.INCONCLUSIVE
    assert told.gate.units.tables["*"].failures == {"soft": 0, "hard": 0, "waits": 0}
    assert "9 items wait" not in found.sentence


def test_an_item_that_ended_untaken_waits_no_more() -> None:
    """Of a type without a handler, say: it is a dead letter, and no worker had it."""
    told = Told()
    for number in range(9):
        told.tell("dead", 20, id=told.queued(number), hard=True, fingerprint=None)
    assert told.gate.verdict(900).finding is Finding.NO_DATA


def test_one_named_error_is_a_breach_and_of_a_replay_none() -> None:
    """Replays are the drain's to judge, and what the former revision took is nobody's."""
    told = Told()
    told.tell("instant", 2, id=told.admit(1, kind="replay"), error="MissingGreenlet: x")
    told.tell("instant", 2, id=told.admit(1, revision="former"), error="MissingGreenlet: x")
    assert told.gate.verdict(10).finding is not Finding.UNHEALTHY
    told.tell("instant", 12, id=told.admit(11, "INVOICE"), error="MissingGreenlet: greenlet_spawn")
    found = told.gate.verdict(20)
    assert found.finding is Finding.UNHEALTHY
    assert found.sentence == "INVOICE: MissingGreenlet: greenlet_spawn: one such error is a breach"
    again = judge_rows(told.gate.traffic.rows(), 20, TYPES)
    assert (again.finding, again.sentence) == (found.finding, found.sentence)


@pytest.mark.parametrize("due", [None, 120.0])
def test_the_pause_between_two_attempts_is_nobodys_delay(due: float | None) -> None:
    """In a blip every first attempt fails. The next one is due in two minutes: it is not stuck at three."""
    told = Told()
    for number in range(20):
        item = told.admit(number)
        more = {} if due is None else {"due": number + 1 + due}
        told.tell("attempt_failed", number + 1, id=item, hard=False, fingerprint="x", **more)
    hard = [told.gate.verdict(now).finding is Finding.UNHEALTHY for now in (190, 260)]
    assert hard == ([True, True] if due is None else [False, False])
    assert told.gate.verdict(400).finding is Finding.UNHEALTHY, "long after it was due, it is stuck"


def test_a_retry_that_a_person_holds_is_not_stuck() -> None:
    """It is due, and nobody may take it."""
    told = Told()
    for number in range(20):
        item = told.admit(number)
        told.tell("attempt_failed", number + 1, id=item, hard=False, fingerprint="x", due=number + 121.0)
    told.tell("held", 100, seg="PRODUCT")
    assert told.gate.verdict(480).finding is not Finding.UNHEALTHY
    told.tell("released", 490, seg="PRODUCT")
    assert told.gate.verdict(600).finding is not Finding.UNHEALTHY
    assert told.gate.verdict(900).finding is Finding.UNHEALTHY


def test_dead_letters_that_complete_open_the_intake() -> None:
    """They may be the first that the released workers apply. That they fail again says nothing of live traffic."""
    told = Told(slow_start=True)
    for number in range(5):
        told.dead(number, kind="replay", hard=True)
    told.decide(10)
    assert told.gate.throttled() == {"*": 3}
    for number in range(5):
        told.done(10 + number, kind="replay")
    told.decide(20)
    assert told.gate.throttled() == {"*": 6}


def test_a_release_that_is_slower_than_the_one_before_does_not_pass() -> None:
    """Within its deadline, and never rolled back for that: a person decides."""
    told = Told(day(latency_s=(2.0, 4.0, 6.0)))
    for at in range(0, 1800, 20):
        told.done(at, took=9.0 if at % 200 == 0 else 2.0)
    found = told.gate.verdict(1810, left=-1)
    assert found.finding is Finding.INCONCLUSIVE
    assert found.sentence == "9 of 90 took longer than 99 of 100 did on the day before"
    fast = Told(day(latency_s=(0.02, 0.04, 0.06)))
    for at in range(0, 1800, 20):
        fast.done(at, took=2.0)
    assert fast.gate.verdict(1810, left=-1).finding is Finding.HEALTHY, "below five seconds nothing is slow"


def test_the_watch_may_begin_after_the_switch() -> None:
    """What is left of it is the caller's to say; the evidence counts from the switch."""
    told = Told()
    told.healthy(0, 1900, 20)
    assert told.gate.verdict(1900).finding is Finding.HEALTHY
    assert told.gate.verdict(1900, left=600).finding is Finding.INCONCLUSIVE
    assert told.gate.verdict(700, left=0).finding is Finding.HEALTHY


def test_a_new_controller_holds_what_the_last_one_held() -> None:
    """To its probes, from now on."""
    told = Told()
    told.gate.hold(["INVOICE"], 100)
    told.gate.hold([], 100)
    assert told.gate.throttled() == {"INVOICE": 3}
    assert [event["quotas"] for event in told.gate.own] == [{"INVOICE": 3}]


def away(told: Told, since: float, until: float) -> None:
    """The database, or the upstream, was away: told when it is back."""
    told.tell("upstream", since, up=False)
    told.tell("upstream", until, up=True)


def test_an_outage_makes_nothing_stuck_that_was_to_be_tried_again() -> None:
    """It failed before, of something that a retry cures, and nobody could try it again meanwhile."""
    told = Told()
    for number in range(6):
        item = told.admit(10 + number)
        told.tell("attempt_failed", 12 + number, id=item, hard=False, fingerprint="timeout", due=130)
    away(told, 110, 500)
    assert told.gate.verdict(520).finding is not Finding.UNHEALTHY
    assert told.gate.units.tables["*"].failures["hard"] == 0
    assert told.gate.verdict(900).finding is Finding.UNHEALTHY, (
        "it was not tried again after the outage either"
    )


def test_an_outage_makes_no_wait_a_wait_in_vain() -> None:
    """Parents could not come."""
    told = Told()
    for number in range(6):
        told.tell("waits", 12, id=told.admit(10, key=f"{number}"), parent=f"p{number}")
    away(told, 110, 500)
    told.gate.verdict(550)
    assert told.gate.units.tables["*"].failures["waits"] == 0
    told.gate.verdict(600)
    assert told.gate.units.tables["*"].failures["waits"] == 6


def test_what_was_given_back_is_not_stuck_while_a_person_holds_it() -> None:
    """What a worker has in hand is, whoever holds its type: nothing hinders that worker."""
    told = Told()
    back, hung = told.admit(10), told.admit(10)
    told.tell("back", 20, id=back)
    told.tell("held", 25, seg="*", by="ops-a")
    told.tell("released", 700, seg="*")
    told.gate.verdict(800)
    courses = told.gate.units.open
    assert courses[back].hard_at is None
    assert courses[hung].hard_at is not None
    told.gate.verdict(900)
    assert courses[back].hard_at is not None


def test_what_was_given_back_is_no_unanswered_probe() -> None:
    """Nobody has it, and nobody could take it while it was one."""
    told = Told(slow_start=True)
    items = [told.admit(5) for _ in range(3)]
    told.gate.decide(10)
    assert told.gate.throttled() == {"*": 0}
    for item in items:
        told.tell("back", 12, id=item)
    told.gate.decide(15)
    assert told.gate.throttled() == {"*": 3}
    told.tell("taken", 16, id=items[0])
    told.gate.decide(17)
    assert told.gate.throttled() == {"*": 2}
    told.gate.decide(40)
    assert told.gate.throttled()["PRODUCT"] == 2, "slow by now, so its type is held as well"


def test_what_waits_behind_an_older_event_of_its_record_is_not_untaken() -> None:
    """It is free when that one ends. What waits for a parent holds nothing back."""
    told = Told()
    first, parentless = told.admit(1, key="a"), told.admit(1, key="b")
    told.queued(2, key="a")
    told.queued(2, key="b")
    told.tell("waits", 3, id=parentless, parent="p")
    told.healthy(100, 200)
    told.gate.verdict(300)
    assert [each.key for each in told.gate.holds.untaken(300, 60)] == ["b"]
    told.tell("dead", 310, id=first, hard=False, fingerprint="x")
    told.healthy(320, 400)
    told.gate.verdict(400)
    assert ("a", 310) in [(each.key, each.free) for each in told.gate.holds.untaken(400, 60)]


def test_what_has_a_worse_priority_than_all_that_is_taken_is_not_overtaken() -> None:
    """Workers take the others first, also those that came later, while the gate or a burst lets few through."""
    told = Told()
    for number in range(9):
        told.queued(number, "INVOICE", priority=10)
    told.healthy(10, 300)
    assert told.gate.verdict(300).finding is not Finding.UNHEALTHY
    assert not list(told.gate.holds.untaken(300, 60))
    told.done(300, priority=11)
    assert told.gate.verdict(310).finding is Finding.UNHEALTHY, "something of a still worse one was taken"


def test_what_has_a_better_priority_and_is_not_taken_is_overtaken() -> None:
    """By all that workers take instead."""
    told = Told()
    for number in range(9):
        told.queued(20 + number, "INVOICE", priority=1)
    told.healthy(10, 300)
    assert told.gate.verdict(300).finding is Finding.UNHEALTHY
    assert [row["priority"] for row in told.gate.traffic.rows() if row["ev"] == "queued"] == [1] * 9
