"""What nobody takes though it is free, and what is somebody's hold."""

from __future__ import annotations

from handlers.gate.values import Finding
from tests.unit.gate.told import Told


def untaken(told: Told, now: float, age_s: float = 60.0) -> list[str]:
    """The types of what has been free for too long."""
    told.gate.verdict(now)
    return [each.entity for each in told.gate.holds.untaken(now, age_s)]


def test_what_no_worker_takes_rolls_back() -> None:
    """A release whose workers never come up shows no traffic and no fault otherwise."""
    told = Told()
    for at in range(0, 60, 5):
        told.queued(at)
    assert told.gate.verdict(60).finding is Finding.NO_DATA
    assert told.gate.verdict(300).finding is Finding.UNHEALTHY


def test_a_backlog_that_is_worked_off_in_order_is_no_fault() -> None:
    """The last of a long queue waits for minutes while the first are taken."""
    told = Told()
    for at in range(200):
        told.queued(-200 + at)
    for number in range(1, 150):
        told.tell("arrive", number * 2.0, id=f"i{number}", seg="PRODUCT", key=f"i{number}", kind="live")
        told.tell("done", number * 2.0 + 1, id=f"i{number}")
    assert untaken(told, 290) == []


def test_what_is_passed_over_is_a_fault() -> None:
    """One type is taken, the other is not: later ones went ahead."""
    told = Told()
    told.queued(100, "INVOICE")
    told.healthy(100, 200, 2.0)
    assert untaken(told, 159) == []
    assert untaken(told, 200) == ["INVOICE"]


def test_what_a_person_holds_is_not_late() -> None:
    """Neither all of it nor a type; it becomes free when released."""
    for stream in ("*", "PRODUCT"):
        told = Told()
        told.tell("held", 0, seg=stream, per_10s=0)
        for at in range(0, 60, 5):
            told.queued(at)
        assert untaken(told, 500) == []
        told.tell("released", 500, seg=stream)
        assert untaken(told, 550) == []
        assert len(untaken(told, 561)) == 12


def test_what_the_gate_holds_is_not_late() -> None:
    """A quota of none lets nothing through."""
    told = Told()
    told.tell("intake", 0, quotas={"*": 0}, probing=True)
    for at in range(1, 60, 5):
        told.queued(at)
    assert untaken(told, 500) == []


def test_of_what_the_gate_holds_the_quota_is_free() -> None:
    """Three in ten seconds could have been taken: the fourth is ten seconds younger."""
    told = Told()
    told.tell("intake", 0, quotas={"*": 3}, probing=True)
    for _ in range(12):
        told.queued(0)
    assert len(untaken(told, 61)) == 3
    assert len(untaken(told, 71)) == 6
    assert len(untaken(told, 91)) == 12


def test_what_came_before_the_switch_is_free_from_the_switch_on() -> None:
    """The time under the former revision is not the release's."""
    told = Told()
    told.queued(-3000)
    assert untaken(told, 60) == []
    assert untaken(told, 61) == ["PRODUCT"]


def test_a_replay_in_the_queue_is_the_drains() -> None:
    """It is sent back in batches, and waits for its turn."""
    told = Told()
    told.queued(0, kind="replay")
    assert untaken(told, 500) == []


def test_ten_webhooks_of_one_record_are_one_untaken() -> None:
    """A record is one fact, untaken as well."""
    told = Told()
    for at in range(10):
        told.queued(at, key="the same")
    assert untaken(told, 100) == ["PRODUCT"]


def test_what_was_taken_at_last_counts_by_its_admission() -> None:
    """A short gap without workers: nothing remains of it when all is taken."""
    told = Told()
    items = [told.queued(at) for at in range(0, 90, 5)]
    assert untaken(told, 100)
    for item in items:
        told.tell("arrive", 101, id=item, seg="PRODUCT", key=item, kind="live")
        told.tell("done", 103, id=item)
    assert untaken(told, 110) == []
    assert told.gate.verdict(400).finding is Finding.INCONCLUSIVE


def test_what_waits_for_the_next_tick_of_the_gate_is_not_untaken() -> None:
    """A deadline shorter than two ticks: the gate itself lets the next items through only then."""
    told = Told(slow_start=True, deadline_s=2.0)
    told.decide(1)
    for number in range(3):
        told.queued(1 + number)
    told.done(1, took=0.5)
    assert "wait and no worker takes them" not in told.gate.verdict(12, left=-1).sentence
    assert "wait and no worker takes them" in told.gate.verdict(60, left=-1).sentence


def test_what_waits_while_the_released_workers_start_is_free_when_they_run() -> None:
    """They are slow on a busy machine, and that is for the probe to judge. From their start on, the deadline counts."""
    told = Told()
    told.tell("starting", 0, until=120)
    for n in range(4):
        told.queued(n, "PRODUCT", f"k{n}")
    assert untaken(told, 119) == []
    assert "are being started" in told.gate.verdict(49).sentence
    told.tell("started", 50)
    assert "no live event was taken" in told.gate.verdict(51).sentence
    assert untaken(told, 110) == []
    assert len(untaken(told, 111)) == 4


def test_workers_that_never_prove_to_run_count_as_started_when_the_probe_gives_up() -> None:
    """A release that is held in its probe is not forgotten."""
    told = Told()
    told.tell("starting", 0, until=120)
    told.queued(5, "PRODUCT")
    assert untaken(told, 180) == []
    assert untaken(told, 181) == ["PRODUCT"]


def test_what_a_released_worker_takes_shows_that_it_runs() -> None:
    """Then nothing more has to be proven; what the former one still took shows nothing."""
    told = Told()
    told.tell("starting", 0, until=120)
    told.queued(0, "PRODUCT", "older")
    told.tell("arrive", 10, id="former", seg="PRODUCT", key="a", kind="live", arrived=1, revision="former")
    assert untaken(told, 100) == []
    told.tell("arrive", 20, id="ours", seg="PRODUCT", key="b", kind="live", arrived=2)
    assert untaken(told, 81) == ["PRODUCT"]
