"""What counts as a unit, when it is bad, and what is no evidence at all."""

from __future__ import annotations

from handlers.gate.blocks import HARD, SOFT, WAITS
from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.gate.parameters import POOLED
from tests.unit.gate.told import Told, day


def counts(told: Told, now: float, stream: str = POOLED) -> tuple[int, int, int, int]:
    """Units, and the bad ones by track, at *now*."""
    told.gate.verdict(now)
    table = told.gate.units.tables[stream]
    return sum(table.units), sum(table.bad[SOFT]), sum(table.bad[HARD]), sum(table.bad[WAITS])


def test_a_unit_is_one_record_once_in_two_minutes() -> None:
    """Ten webhooks of one record within two minutes are one unit; after them it is one again."""
    told = Told()
    for at in range(0, 100, 10):
        told.done(at, key="vendor-7")
    assert counts(told, 110) == (1, 0, 0, 0)
    told.done(120, key="vendor-7")
    assert counts(told, 130) == (2, 0, 0, 0)


def test_a_poisoned_record_fails_once_in_ten_minutes() -> None:
    """A record that fails again and again is one fact, even after two minutes."""
    told = Told()
    for at in range(0, 600, 50):
        told.dead(at, key="poison", fingerprint="same")
    assert counts(told, 599)[:2] == (1, 1)
    told.dead(600, key="poison")
    assert counts(told, 610)[:2] == (2, 2)


def test_the_recovery_of_a_failed_record_is_one_good_unit() -> None:
    """Its next success counts, further successes within two minutes do not."""
    told = Told()
    told.dead(0, key="k")
    told.done(30, key="k")
    told.done(60, key="k")
    assert counts(told, 90)[:2] == (2, 1)


def test_an_event_that_is_no_unit_never_makes_a_record_fail() -> None:
    """Whether an event counts is settled at its admission: what fails between two units tells nothing."""
    told = Told()
    told.done(0, key="k")
    told.dead(60, key="k")
    assert counts(told, 70)[:2] == (1, 0)
    told.done(125, key="k")
    assert counts(told, 140)[:2] == (2, 0)


def test_two_types_with_one_key_are_two_records() -> None:
    """The source numbers its records by type."""
    told = Told()
    told.done(0, "PRODUCT", key="1")
    told.dead(0, "INVOICE", key="1")
    assert counts(told, 10)[:2] == (2, 1)


def test_what_the_former_revision_took_is_no_evidence() -> None:
    """Good or bad, also when it finishes after the switch."""
    told = Told()
    for at in range(0, 60, 5):
        told.dead(at, revision="former", hard=True)
    assert counts(told, 200) == (0, 0, 0, 0)


def test_a_replay_is_no_evidence() -> None:
    """A dead letter that is sent back and dies again does not roll back; the drain has its own rules."""
    told = Told()
    for at in range(0, 60, 5):
        told.dead(at, kind="replay", hard=True)
    assert counts(told, 200) == (0, 0, 0, 0)


def test_what_is_pending_counts_as_good_until_its_deadline() -> None:
    """Imputed: a fast failure must not weigh more than a slow success."""
    told = Told()
    told.admit(0)
    assert counts(told, 60) == (1, 0, 0, 0)
    assert counts(told, 60.1) == (1, 1, 0, 0)


def test_completed_after_the_deadline_is_failed() -> None:
    """Late is bad, and stays bad when it completes at last."""
    told = Told()
    told.done(0, took=61)
    told.done(0, took=60)
    assert counts(told, 70) == (2, 1, 0, 0)


def test_what_no_blip_explains_is_stuck() -> None:
    """Unfinished for longer than a blip and a deadline: hard. One that ends just before is not."""
    told = Told()
    told.admit(0)
    told.dead(0, took=179)
    assert counts(told, 180) == (2, 2, 0, 0)
    assert counts(told, 181) == (2, 2, 1, 0)


def test_an_error_that_no_retry_cures_counts_at_the_attempt_that_met_it() -> None:
    """There is no need to wait until the item is buried."""
    told = Told()
    item = told.admit(0)
    told.tell("attempt_failed", 3, id=item, hard=True, fingerprint="KeyError: 'rate'")
    assert counts(told, 4) == (1, 1, 1, 0)


def test_a_failed_attempt_that_a_retry_may_cure_is_nothing_yet() -> None:
    """Retries are internal: only the end counts."""
    told = Told()
    item = told.admit(0)
    for at in (1, 2, 3):
        told.tell("attempt_failed", at, id=item, hard=False)
    told.tell("done", 10, id=item)
    assert counts(told, 20) == (1, 0, 0, 0)


def test_a_known_error_never_goes_on_the_hard_track() -> None:
    """Neither at the attempt, nor at the end, nor because it is stuck, nor because it comes again."""
    told = Told(day("VENDOR", ok=0.85, fingerprints={"date": 0.15}))
    item = told.admit(0, "VENDOR")
    told.tell("attempt_failed", 3, id=item, hard=True, fingerprint="date")
    told.dead(0, "VENDOR", key="again", hard=True, fingerprint="date")
    told.dead(200, "VENDOR", key="again", hard=True, fingerprint="date")
    assert counts(told, 390, "VENDOR") == (2, 2, 0, 0)


def test_an_error_is_known_by_its_type() -> None:
    """What vendors died of is new for products."""
    told = Told(day("VENDOR", fingerprints={"date": 0.02}))
    told.dead(0, "PRODUCT", hard=True, fingerprint="date")
    assert counts(told, 10) == (1, 1, 1, 0)


def test_an_error_without_a_fingerprint_is_new() -> None:
    """Not knowing is no excuse."""
    told = Told(day("PRODUCT", fingerprints={"date": 0.02}))
    told.dead(0, hard=True)
    assert counts(told, 10)[2] == 1


def test_a_record_that_fails_again_after_any_blip_was_no_blip() -> None:
    """Its first failure becomes hard; within 180 seconds it does not."""
    told = Told()
    told.dead(0, key="a")
    told.dead(179, key="a")
    told.dead(0, key="b")
    told.dead(180, key="b")
    assert counts(told, 190) == (2, 2, 1, 0)


def test_a_record_that_recovered_has_not_failed_again() -> None:
    """A success in between: two failures are two pieces of bad luck."""
    told = Told()
    told.dead(0, key="a")
    told.done(60, key="a")
    told.dead(200, key="a")
    assert counts(told, 210)[2] == 0


def test_waiting_stops_the_deadline() -> None:
    """Who waits for a parent has not failed, and gets a new clock when woken."""
    told = Told()
    item = told.admit(0)
    told.tell("waits", 1, id=item, parent="customer-1")
    assert counts(told, 170) == (1, 0, 0, 0)
    told.tell("woken", 170, id=item)
    told.tell("done", 229, id=item)
    assert counts(told, 300) == (1, 0, 0, 0)


def test_woken_and_then_late_is_failed() -> None:
    """The new clock has the same deadline."""
    told = Told()
    item = told.admit(0)
    told.tell("waits", 1, id=item, parent="customer-1")
    told.tell("woken", 100, id=item)
    assert counts(told, 161) == (1, 1, 0, 0)


def test_a_wait_beyond_the_day_before_is_a_failure_of_its_own() -> None:
    """1.25 times the p99 of the day before, and 180 seconds at least; once for each missing parent."""
    told = Told(DayBefore(wait_p99_s=200.0))
    for parent in ("a", "a", "b"):
        told.tell("waits", 1, id=told.admit(0), parent=parent)
    assert counts(told, 251) == (3, 0, 0, 0)
    assert counts(told, 252) == (3, 0, 0, 2)


def test_a_parent_that_a_person_holds_is_not_missing() -> None:
    """While a person holds anything, nobody's parent can be expected."""
    told = Told()
    told.tell("waits", 1, id=told.admit(0, "INVOICE"), parent="customer")
    told.tell("held", 10, seg="CUSTOMER", per_10s=0)
    told.tell("released", 310, seg="CUSTOMER")
    assert counts(told, 400)[3] == 0
    assert counts(told, 482)[3] == 1


def test_a_type_that_was_dead_before_is_no_reason_to_go_back_for_all() -> None:
    """Its hard errors stay in its own stream, also new ones."""
    before = DayBefore(units=1000, ok=0.97, types={"CREDITNOTE": TypeBefore(units=30, ok=0.0)})
    told = Told(before)
    for at in range(20):
        told.dead(at, "CREDITNOTE", hard=True, fingerprint="new")
    assert counts(told, 40)[2] == 0
    assert counts(told, 40, "CREDITNOTE")[2] == 20


def test_an_unknown_kind_of_event_is_ignored() -> None:
    """More kinds may come."""
    told = Told()
    told.tell("celebrated", 1, id="i1", by="nobody")
    told.tell("moon_phase", 1)
    told.done(2)
    assert counts(told, 10) == (1, 0, 0, 0)


def test_an_end_without_an_admission_is_ignored() -> None:
    """Whose admission is not known cannot be placed; when it is told later, the item counts."""
    told = Told()
    told.tell("dead", 5, id="ghost", hard=True)
    assert counts(told, 10) == (0, 0, 0, 0)
    told.tell("arrive", 1, id="ghost", seg="PRODUCT", key="ghost", kind="live", arrived=1)
    assert counts(told, 11) == (1, 1, 1, 0)
