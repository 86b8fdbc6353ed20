"""When a release is rolled back, and when it is not: the bad paths of the sequential gate."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.gate.parameters import Parameters
from handlers.gate.values import Finding
from handlers.gate.weigh import weigh_again
from tests.unit.gate.told import TYPES, Told, day


def rolled_back(told: Told, now: float) -> bool:
    """Whether the verdict at *now* is a breach."""
    return told.gate.verdict(now).finding is Finding.UNHEALTHY


def test_three_of_three_at_the_switch_roll_back() -> None:
    """Hard errors of three records of different types; two are bad luck."""
    told = Told()
    for entity in ("PRODUCT", "INVOICE"):
        told.dead(0, entity, hard=True)
    assert not rolled_back(told, 10)
    told.dead(11, "CUSTOMER", hard=True)
    assert rolled_back(told, 20)


def test_three_events_of_one_record_do_not_roll_back() -> None:
    """A poisoned record is one fact, however often it comes."""
    told = Told()
    for at in range(0, 170, 5):
        told.dead(at, key="poison", hard=True)
    assert not rolled_back(told, 200)


def test_one_dead_type_is_found_among_ten_healthy_ones() -> None:
    """Its own stream sees what the total hides."""
    told = Told()
    told.healthy(0, 300, 1.0)
    for at in (20, 90, 160, 230):
        told.dead(at, "CREDITNOTE", hard=True)
    found = told.gate.verdict(300)
    assert found.finding is Finding.UNHEALTHY
    assert found.sentence.startswith("CREDITNOTE: 4 of 4 records")


def test_one_blip_of_two_minutes_never_rolls_back() -> None:
    """Everything fails for 120 seconds, of errors that a retry cures: forgiven at every look."""
    told = Told()
    told.healthy(0, 600, 2.0)
    for at in range(605, 725, 1):
        told.dead(at)
    told.healthy(725, 1200, 2.0)
    assert all(judged.finding is not Finding.UNHEALTHY for judged in told.look(10, 1200))


def test_what_lasts_longer_than_a_blip_rolls_back() -> None:
    """The same errors for four minutes."""
    told = Told()
    told.healthy(0, 600, 2.0)
    for at in range(605, 845, 1):
        told.dead(at)
    assert rolled_back(told, 850)


def test_a_gap_shorter_than_a_blip_is_forgiven() -> None:
    """Workers that stop for 110 seconds and go on: late, but not stuck."""
    told = Told()
    told.healthy(0, 600, 2.0)
    for at in range(600, 710, 2):
        told.done(at, took=710 - at + 2)
    told.healthy(710, 1200, 2.0)
    assert all(judged.finding is not Finding.UNHEALTHY for judged in told.look(10, 1200))


def test_a_stall_rolls_back() -> None:
    """Items that are taken and never end are failures, though no error was seen."""
    told = Told()
    told.healthy(0, 300, 2.0)
    for at in range(300, 330, 3):
        told.admit(at)
    assert rolled_back(told, 520)


def test_nothing_pending_counts_against_the_release_before_its_deadline() -> None:
    """Ten thousand items in progress are no evidence."""
    told = Told()
    for number in range(10_000):
        told.admit(number / 1000)
    assert not rolled_back(told, 60)


def test_known_errors_at_their_usual_share_do_not_roll_back() -> None:
    """A batch of bad vendors, as the former revision had them."""
    told = Told(day("VENDOR", units=1500, ok=0.85, fingerprints={"date": 0.15}))
    told.healthy(0, 600, 2.0)
    for at in range(300, 308):
        told.dead(at, "VENDOR", hard=True, fingerprint="date")
    assert not rolled_back(told, 600)


def test_a_new_error_in_a_type_with_known_ones_rolls_back() -> None:
    """Another error is another cause."""
    told = Told(day("VENDOR", units=1500, ok=0.85, fingerprints={"date": 0.15}))
    told.healthy(0, 300, 2.0)
    for at in range(20, 24):
        told.dead(at, "VENDOR", hard=True, fingerprint="country")
    assert rolled_back(told, 60)


def test_a_known_error_that_meets_everything_rolls_back() -> None:
    """Known, but not at this share."""
    told = Told(day("PRODUCT", units=5000, ok=0.99, fingerprints={"rate": 0.01}))
    for at in range(0, 400, 4):
        told.dead(at, hard=True, fingerprint="rate")
    assert rolled_back(told, 410)


def test_a_release_no_worse_than_the_former_is_not_rolled_back() -> None:
    """72 % before and now: going back would not help."""
    before = DayBefore(units=1500, ok=0.72, types={"PRODUCT": TypeBefore(units=1500, ok=0.72)})
    told = Told(before)
    for at in range(0, 1200, 2):
        (told.dead if at % 7 < 2 else told.done)(at)
    assert not rolled_back(told, 1210)


def test_a_type_that_was_dead_before_is_not_rolled_back() -> None:
    """Also with another error than before."""
    types = {"CREDITNOTE": TypeBefore(units=40, ok=0.0, fingerprints={"tax": 1.0})}
    told = Told(DayBefore(units=2000, ok=0.97, types=types))
    told.healthy(0, 1200, 2.0)
    for at in range(0, 1200, 30):
        told.dead(at, "CREDITNOTE", hard=True, fingerprint="tax" if at < 600 else "new")
    assert not rolled_back(told, 1210)


def test_what_is_missing_in_the_day_before_was_healthy() -> None:
    """A type that nobody described is held to the bar."""
    told = Told(day("VENDOR", ok=0.5))
    for at in range(4):
        told.dead(at, "BILL", hard=True)
    assert rolled_back(told, 20)


def test_after_a_time_without_a_look_a_breach_must_show_again() -> None:
    """What was away then and is back leaves open events behind: the workers get twenty seconds for them."""
    told = Told()
    told.healthy(0, 300)
    untaken = [told.queued(400 + n, entity, f"k{n}") for n, entity in enumerate(TYPES * 2)]
    told.tell("unwatched", 700)
    found = told.gate.verdict(700)
    assert found.finding is Finding.INCONCLUSIVE
    assert "it counts if it shows in 20 s again" in found.sentence
    assert not rolled_back(told, 719)
    assert rolled_back(told, 720)
    for n, item in enumerate(untaken):
        told.tell("arrive", 705, id=item, seg=(TYPES * 2)[n], key=f"k{n}", arrived=400 + n, kind="live")
        told.tell("done", 706, id=item)
    assert not rolled_back(told, 720)


def test_an_error_that_is_named_counts_at_the_first_look_after_a_time_without_one() -> None:
    """Nothing cures it, so nothing is waited for."""
    told = Told()
    item = told.admit(400)
    told.tell("instant", 401, id=item, error="greenlet_spawn")
    told.tell("unwatched", 700)
    assert rolled_back(told, 700)


def test_an_outage_of_the_upstream_is_no_evidence() -> None:
    """What was admitted in it, or within a minute of it, counts neither way."""
    told = Told()
    told.healthy(0, 480, 2.0)
    told.tell("upstream", 500, up=False)
    for at in range(480, 1080, 2):
        told.dead(at, hard=True)
    told.tell("upstream", 1090, up=True)
    told.healthy(1090, 1900, 2.0)
    assert not rolled_back(told, 1000)
    assert told.gate.verdict(1900).finding is Finding.HEALTHY


def test_the_same_outage_without_a_probe_rolls_back() -> None:
    """Nobody said that it was not the release."""
    told = Told()
    told.healthy(0, 480, 2.0)
    for at in range(480, 1080, 2):
        told.dead(at, hard=True)
    assert rolled_back(told, 1000)


def test_parents_that_are_never_found_roll_back() -> None:
    """Five of five of a type, each for another parent, longer than on the day before."""
    told = Told(DayBefore(wait_p99_s=100.0))
    for at in range(5):
        told.tell("waits", at + 1, id=told.admit(at, "INVOICE"), parent=f"customer-{at}")
    assert not rolled_back(told, 180)
    assert rolled_back(told, 190)


def test_thirty_orders_of_one_late_customer_do_not_roll_back() -> None:
    """One missing parent is one fact."""
    told = Told(DayBefore(wait_p99_s=100.0))
    told.healthy(0, 300, 5.0)
    for at in range(30):
        told.tell("waits", at + 1, id=told.admit(at, "SALESORDER"), parent="customer-1")
    assert not rolled_back(told, 400)


def test_no_live_event_is_no_data() -> None:
    """Synthetic events prove that measuring works, and no more."""
    told = Told()
    assert told.gate.verdict(2000).finding is Finding.NO_DATA
    for at in range(40):
        told.done(at, kind="synthetic")
    assert told.gate.verdict(2000).finding is Finding.NO_DATA


def test_synthetic_events_can_roll_back() -> None:
    """In thin traffic they find what no webhook has met yet."""
    told = Told()
    for at in range(4):
        told.dead(at, "INVOICE", kind="synthetic", hard=True)
    assert rolled_back(told, 10)


def test_a_source_that_is_down_holds_whatever_was_counted() -> None:
    """Never a pass and never a rollback; what was known before is judged again when it answers."""
    told = Told()
    for at in range(4):
        told.dead(at, "INVOICE", hard=True)
    found = told.gate.decide(10, source_down="the database does not answer")
    assert found.finding is Finding.SOURCE_DOWN
    assert "the database does not answer" in found.sentence
    assert rolled_back(told, 20)


def test_the_risk_is_shared_and_not_multiplied() -> None:
    """All streams and tracks together have a risk of alpha."""
    p = Parameters()
    tracks = p.soft_share + p.hard_share + p.waits_share
    assert tracks * (p.share("*", 11) + 11 * p.share("INVOICE", 11)) == pytest.approx(1.0)


def test_a_smaller_risk_needs_more_evidence() -> None:
    """The third failure is not enough for one in a thousand."""
    for alpha, breach in ((0.01, True), (0.001, False)):
        told = Told(alpha=alpha)
        for entity in ("PRODUCT", "INVOICE", "CUSTOMER"):
            told.dead(0, entity, hard=True)
        assert rolled_back(told, 10) is breach


def test_parameters_that_make_no_sense_are_refused() -> None:
    """Bars in the wrong order, a risk of zero, tracks that share more than there is."""
    for wrong in ({"ok": 0.7}, {"alpha": 0.0}, {"beta": 2.0}, {"soft_share": 0.9}):
        with pytest.raises(ValueError, match=r"bars|must be|exceed"):
            replace(Parameters(), **wrong)


def test_every_decision_can_be_made_again_from_its_inputs() -> None:
    """Through JSON: the odds come out the same, and reach the thresholds that are stored beside them."""
    told = Told()
    told.healthy(0, 300, 2.0)
    for at in range(300, 420, 5):
        told.dead(at, hard=at % 2 == 0)
    found = told.gate.verdict(440)
    assert found.finding is Finding.UNHEALTHY
    weighed = json.loads(json.dumps(found.inputs))["weighed"]
    assert weigh_again(weighed) == (weighed["odds"], weighed["odds_mid"])
    assert weighed["odds"] >= weighed["threshold"]
    assert weighed["odds_mid"] >= weighed["threshold_mid"]


def test_every_sentence_is_short_and_has_its_numbers() -> None:
    """At most 25 words, of every finding, in every phase of a bad and of a good release."""
    long_cause = "the database does not answer " * 20
    sentences = [Told().decide(10).sentence, Told().gate.decide(10, source_down=long_cause).sentence]
    for kind in ("done", "dead", "hard", "late", "waits", "old"):
        told = Told(DayBefore(units=900, ok=0.9) if kind == "old" else None)
        for at in range(0, 1800, 20):
            if kind in {"done", "dead", "hard", "old"}:
                (told.done if kind == "done" else told.dead)(
                    at, "SALESORDER", **({"hard": True} if kind == "hard" else {})
                )
            else:
                item = told.admit(at)
                if kind == "waits":
                    told.tell("waits", at + 1, id=item, parent=item)
        sentences += [judged.sentence for judged in told.look(10, 2000)]
    assert max(len(sentence.split()) for sentence in sentences) <= 25
    assert [sentence for sentence in sentences if not any(letter.isdigit() for letter in sentence)] == [
        sentence
        for sentence in sentences
        if sentence.startswith(("no live event", "nothing could be measured"))
    ]
