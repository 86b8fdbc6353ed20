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
