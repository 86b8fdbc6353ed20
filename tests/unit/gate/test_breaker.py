"""Suspicion and what it does: it holds the intake, opens it again, and never decides."""

from __future__ import annotations

from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.gate.values import Finding
from tests.unit.gate.told import TYPES, Told


def warmed(until: float = 300.0) -> Told:
    """A gate whose slow start is over, with completions to compare with."""
    told = Told(slow_start=False)
    for number in range(int(until / 2)):
        told.done(number * 2, took=0.5 + number % 9)
    told.look(10, until)
    return told


def test_a_release_begins_held() -> None:
    """Three items in ten seconds, before the first look."""
    assert Told(slow_start=True).gate.throttled() == {"*": 3}


def test_five_clean_probes_open_it_by_doubling() -> None:
    """3, then 6, 12, ... 96 in ten seconds, then no quota."""
    told = Told(slow_start=True)
    for at in range(5):
        told.done(at)
    seen = []
    for now in range(10, 100, 10):
        told.decide(now)
        seen.append(told.gate.throttled().get("*"))
    assert seen == [6, 12, 24, 48, 96, None, None, None, None]


def test_probes_that_had_to_queue_open_it_as_well() -> None:
    """That an item was queued before it was taken is no late fact: nothing is read again, no outcome lost."""
    told = Told(slow_start=True)
    items = [told.queued(at) for at in range(5)]
    told.decide(10)
    for item in items:
        told.tell("arrive", 10, id=item, seg="PRODUCT", key=item, kind="live")
        told.tell("done", 12, id=item)
    units = told.gate.units
    told.decide(20)
    assert told.gate.throttled() == {"*": 6}
    assert told.gate.units is units


def test_a_failure_among_the_probes_begins_the_count_anew() -> None:
    """Four clean ones, one failure, four clean ones: still held."""
    told = Told(slow_start=True)
    for at in range(9):
        (told.dead if at == 4 else told.done)(at)
    told.decide(20)
    assert told.gate.throttled() == {"*": 3}


def test_at_most_three_probes_are_unanswered() -> None:
    """What does not end is not fed with more."""
    told = Told(slow_start=True)
    for expected in (2, 1, 0):
        told.admit(1)
        told.decide(10 + expected)
        assert told.gate.throttled() == {"*": expected}


def test_a_probe_is_answered_when_it_is_stuck() -> None:
    """After 180 seconds the next three go in, or a short gap would hold the queue for ever."""
    told = Told(slow_start=True)
    for entity in TYPES[:3]:
        told.admit(0, entity)
    told.decide(170)
    assert told.gate.throttled() == {"*": 0}
    told.decide(181)
    assert told.gate.throttled() == {"*": 3}


def test_six_probes_may_wait_for_parents() -> None:
    """Five are needed to prove that parents are not found."""
    told = warmed()
    for number in range(4):
        told.tell("waits", 301, id=told.admit(300, "INVOICE"), parent=f"customer-{number}")
    told.decide(310)
    assert told.gate.throttled() == {"INVOICE": 2}


def test_waiting_never_holds_all_types() -> None:
    """The parents that are waited for are in the queue as well."""
    told = warmed()
    for number in range(30):
        told.tell("waits", 301, id=told.admit(300, TYPES[number % 5]), parent=f"customer-{number}")
    told.decide(310)
    assert "*" not in told.gate.throttled()


def test_failures_hold_their_type_before_they_can_decide() -> None:
    """Curable ones, so that a blip is not ruled out yet."""
    told = warmed()
    for at in range(300, 306):
        told.dead(at, "INVOICE", took=1)
    found = told.decide(310)
    assert found.finding is Finding.INCONCLUSIVE
    assert "INVOICE" in told.gate.throttled() or "*" in told.gate.throttled()


def test_a_stall_is_suspected_within_seconds() -> None:
    """No item is late yet, but so many open ones have not been seen in the last 200 completions."""
    told = warmed()
    for at in range(300, 310):
        told.admit(at)
    told.decide(304)
    assert "*" not in told.gate.throttled()
    told.decide(315)
    assert told.gate.throttled() == {"*": 0}


def test_a_burst_is_no_stall() -> None:
    """A hundred items at once that take what items always took."""
    told = warmed()
    for number in range(100):
        told.done(300 + number / 100, took=0.5 + number % 9)
    told.look(302, 320, 2)
    assert told.gate.throttled() == {}


def test_slow_is_what_is_slower_than_the_day_before() -> None:
    """With a p99 of 54 seconds nothing is suspicious at 40."""
    slow = {"PRODUCT": TypeBefore(units=900, latency_s=(34.0, 44.0, 54.0))}
    told = Told(DayBefore(units=900, types=slow))
    for at in range(0, 600, 2):
        told.done(at, took=40.0)
    told.look(10, 600)
    assert told.gate.throttled() == {}


def test_the_quotas_of_held_types_are_not_hidden_by_that_of_all() -> None:
    """While all types open step by step, a held type keeps its own quota."""
    told = Told(slow_start=True)
    for at in range(5):
        told.done(at)
    for at in range(4):
        told.tell("waits", at + 1, id=told.admit(at, "INVOICE"), parent=f"customer-{at}")
    told.decide(10)
    quotas = told.gate.throttled()
    assert "*" not in quotas
    assert quotas["INVOICE"] < quotas["PRODUCT"] == 6
    assert set(quotas) == set(TYPES)


def test_what_a_person_held_comes_back_slowly() -> None:
    """The same slow start as after a switch, from the moment of the release."""
    told = warmed()
    told.tell("held", 300, seg="*", per_10s=0)
    told.decide(310)
    told.tell("released", 400, seg="*")
    told.decide(410)
    assert told.gate.throttled() == {"*": 3}


def test_a_hold_does_not_last_for_ever() -> None:
    """After eight minutes without five clean probes it opens, and falls back if they fail."""
    told = Told(slow_start=True)
    told.decide(470)
    assert told.gate.throttled() == {"*": 3}
    told.decide(480)
    assert told.gate.throttled() == {"*": 6}
    for number in range(4):
        told.dead(480 + number, TYPES[number])
    told.decide(490)
    assert told.gate.throttled() == {"*": 3}


def test_known_errors_do_not_hold_a_type_that_had_them() -> None:
    """Of a type that failed in 40 % only a new error is news."""
    types = {"VENDOR": TypeBefore(units=500, ok=0.6, fingerprints={"date": 0.4})}
    told = Told(DayBefore(units=5000, ok=0.98, types=types))
    told.healthy(0, 600, 2.0)
    for at in range(0, 600, 12):
        (told.dead if at % 36 == 0 else told.done)(
            at, "VENDOR", fingerprint="date"
        ) if at % 36 == 0 else told.done(at, "VENDOR")
    told.look(10, 600)
    assert told.gate.throttled() == {}


def test_holding_and_opening_never_roll_back_by_themselves() -> None:
    """A healthy release under slow start, blip and probes ends where it should."""
    told = Told(slow_start=True)
    told.healthy(0, 1800, 5.0)
    assert {judged.finding for judged in told.look(10, 1790)} == {Finding.INCONCLUSIVE}
    assert told.decide(1800).finding is Finding.HEALTHY
