"""The staged drain: batches grow while letters complete, and what fails again is set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.gate.letters import End, Group, Letter, Replay, evidence, group_letters
from handlers.gate.staged import DrainLimits, Rooms, Stage, set_aside

LIMITS = DrainLimits()
TYPES = ("Bill", "Invoice", "Product")
FORMERS = ("greenlet", "date", "")


def letters(entity: str, number: int, former: str = "greenlet") -> list[Letter]:
    return [Letter(id=f"{entity}-{former}-{n}", entity=entity, former=former) for n in range(number)]


def replay(
    entity: str, end: End = End.COMPLETED, *, batch: int = 1, former: str = "greenlet", error: str = ""
) -> Replay:
    return Replay(entity=entity, former=former, end=end, batch=batch, error=error)


def batch(left: Sequence[Letter], replays: Sequence[Replay] = (), factor: int = 2) -> list[Letter]:
    """The next batch, when no letter waits for another."""
    rooms = Rooms(replays, left, LIMITS, factor)
    chosen = []
    for letter in left:
        if rooms.fits(letter):
            rooms.take(letter)
            chosen.append(letter)
    return chosen


def played(left: Sequence[Letter], hopeless: frozenset[str], end: End = End.KNOWN) -> list[list[Letter]]:
    """Every batch of a drain in which exactly the *hopeless* letters fail."""
    batches: list[list[Letter]] = []
    replays: list[Replay] = []
    remaining = list(left)
    while chosen := batch(remaining, replays):
        batches.append(chosen)
        for letter in chosen:
            remaining.remove(letter)
            how = end if letter.id in hopeless else End.COMPLETED
            replays.append(Replay(entity=letter.entity, former=letter.former, end=how, batch=len(batches)))
    return batches


@pytest.mark.parametrize(
    ("bad", "good", "stage"),
    [
        (0, 0, Stage.GROW),
        (0, 58, Stage.GROW),
        (1, 0, Stage.SINGLE),
        (1, 1, Stage.SINGLE),
        (1, 2, Stage.GROW),
        (1, 50, Stage.GROW),
        (2, 0, Stage.STOP),
        (2, 1, Stage.STOP),
        (2, 2, Stage.SINGLE),
        (2, 6, Stage.GROW),
        (3, 54, Stage.GROW),
    ],
)
def test_the_odds_settle_the_stage(bad: int, good: int, stage: Stage) -> None:
    """Under 3 a part may double, from 3 on it is one letter, from 20 on none: two failures of two."""
    assert LIMITS.stage(bad, good) is stage


@pytest.mark.parametrize(
    ("bad", "good", "odds"), [(0, 0, 1.0), (1, 0, 11.352), (2, 0, 162.98), (1, 1, 3.364), (1, 2, 1.862)]
)
def test_the_odds_have_a_fixed_start_and_forgive_nothing(bad: int, good: int, odds: float) -> None:
    """The mean of the four bets, without a weight of an onset: (1/4) sum of (q1/q)^bad (1 - g)^good."""
    gains = (0.158, 0.368, 0.684, 0.968)
    by_hand = sum(((0.05 + 0.95 * g) / 0.05) ** bad * (1 - g) ** good for g in gains) / 4
    assert evidence(bad, good, 0.05) == pytest.approx(by_hand) == pytest.approx(odds, rel=1e-3)


def test_the_first_batch_is_one_letter_of_each_type() -> None:
    """The canary of a product proves nothing about invoices, and not much about the other products."""
    left = letters("Bill", 9) + letters("Invoice", 9) + letters("Product", 9, "date")
    first = batch(left, [replay("Product", batch=0)])
    assert [letter.entity for letter in first] == ["Bill", "Invoice", "Product"]


def test_the_part_of_each_type_doubles() -> None:
    """52 products and 6 invoices after a canary: every part at most doubles, and nothing is left."""
    left = letters("Invoice", 6) + letters("Product", 51)
    sizes = [len(each) for each in played(left, frozenset())]
    assert sizes == [2, 4, 7, 8, 16, 20]


def test_a_factor_of_one_never_grows() -> None:
    """The environment may ask for it."""
    left = letters("Product", 4)
    assert len(batch(left, [replay("Product")], factor=1)) == 1


def test_a_type_with_a_failure_goes_on_with_one_letter() -> None:
    """The others are not held up by it."""
    replays = [replay("Bill", End.FAILED, error="KeyError"), replay("Product")]
    chosen = batch(letters("Bill", 9) + letters("Product", 9), replays)
    assert [letter.entity for letter in chosen] == ["Bill", "Product", "Product"]


@pytest.mark.parametrize("end", [End.FAILED, End.STUCK, End.WAITS])
def test_a_type_of_which_two_of_two_failed_is_set_aside(end: End) -> None:
    """Its other letters stay dead letters, whatever they had died of."""
    replays = [replay("Bill", end), replay("Bill", end, batch=2, former="date")]
    left = letters("Bill", 4) + letters("Bill", 3, "other") + letters("Product", 50)
    assert {letter.entity for letter in batch(left, replays)} == {"Product"}
    found = set_aside(group_letters(replays, left), LIMITS)
    assert [(each.entity, each.letters) for each in found] == [("Bill", 7)]
    assert found[0].reason.startswith("Bill: 2 of 2 did not complete (")


def test_letters_that_had_died_of_an_error_that_failed_again_are_set_aside() -> None:
    """Two of two: the other letters with this error stay, those with another error of the same type go on."""
    replays = [
        replay("Bill", End.KNOWN, former="date"),
        replay("Bill", End.KNOWN, batch=2, former="date"),
        replay("Bill", batch=2),
    ]
    left = letters("Bill", 4, "date") + letters("Bill", 4)
    assert {letter.former for letter in batch(left, replays)} == {"greenlet"}
    [found] = set_aside(group_letters(replays, left), LIMITS)
    assert (found.letters, found.error) == (4, "date")
    assert found.reason == "Bill: 2 of 2 with this error did not complete (date)"


def test_an_error_that_was_not_tried_yet_starts_with_one_letter() -> None:
    """However far the type is: the second batch of a type does not send three hopeless letters at once."""
    replays = [replay("Bill", batch=n) for n in range(4) for _ in range(2**n)]
    chosen = batch(letters("Bill", 5, "date") + letters("Bill", 50), replays)
    assert [letter.former for letter in chosen].count("date") == 1
    assert len(chosen) == 16


def test_four_hopeless_letters_of_58_cost_two_tries() -> None:
    """54 are sent, two of the four failed again, and the last two are set aside."""
    left = letters("Bill", 4, "date") + letters("Bill", 2) + letters("Product", 52)
    hopeless = frozenset(letter.id for letter in left if letter.former == "date")
    sent = [letter for each in played(left, hopeless) for letter in each]
    assert len(sent) == 56
    assert sum(letter.id in hopeless for letter in sent) == 2


def test_what_is_still_held_does_not_let_a_part_grow() -> None:
    """A person holds bills: nothing is known of the two that are open."""
    replays = [replay("Bill", End.OPEN), replay("Bill", End.OPEN)]
    assert len(batch(letters("Bill", 9), replays)) == 2


def test_a_late_letter_that_completes_after_all_lets_its_type_go_on() -> None:
    """Nothing is stored: the stage follows from how the letters stand."""
    stuck = [replay("Bill", End.WAITS), replay("Bill", End.WAITS, batch=2)]
    assert batch(letters("Bill", 3), stuck) == []
    assert len(batch(letters("Bill", 3), [replace(each, end=End.COMPLETED) for each in stuck])) == 2


@pytest.mark.parametrize(("end", "number"), [(End.FAILED, 1), (End.STUCK, 1), (End.KNOWN, 0), (End.WAITS, 0)])
def test_new_errors_that_would_set_aside_a_fifth_are_tried_on(end: End, number: int) -> None:
    """One at a time, until the release is rolled back; old errors and waits are set aside, however many there are."""
    replays = [replay("Product", batch=0), replay("Product", end), replay("Product", end, batch=2)]
    replays += [replay("Product", end, batch=3)]
    others = [replay("Invoice", batch=n) for n in (1, 2, 2, 3, 3, 3)]
    assert len(batch(letters("Product", 49), replays + others)) == number
    assert batch(letters("Product", 2), replays + others) == []


def test_orphans_are_set_aside_with_their_reason() -> None:
    """A letter that needs a record whose own letters failed would wait in vain."""
    left = letters("Invoice", 3)
    [found] = set_aside(group_letters([replay("Invoice")], left, left[:2]), LIMITS)
    assert (found.letters, found.error) == (2, "parent")
    assert "needs a record whose own letters failed" in found.reason


def test_nothing_is_set_aside_where_nothing_is_left() -> None:
    """The letters that failed are counted as failed, and that is all."""
    replays = [replay("Bill", End.KNOWN), replay("Bill", End.KNOWN)]
    assert set_aside(group_letters(replays), LIMITS) == ()


def test_many_letters_that_cannot_go_yet_leave_their_type_for_the_next_batch() -> None:
    """Otherwise every batch would read the payloads of a whole backlog."""
    left = letters("Invoice", 300) + letters("Product", 1)
    rooms = Rooms([], left, LIMITS, 2)
    for letter in left[:200]:
        assert rooms.fits(letter)
        rooms.miss(letter)
    assert [letter.entity for letter in left[200:] if rooms.fits(letter)] == ["Product"]


@pytest.mark.parametrize(
    "values",
    [{"q": 0.0}, {"q": 0.2}, {"q_mid": 1.0}, {"single_from": 0.0}, {"single_from": 30.0}],
)
def test_limits_that_cannot_be_are_refused(values: dict[str, float]) -> None:
    """They would divide by zero or never stop."""
    with pytest.raises(ValueError, match="must be"):
        DrainLimits(**values)


def test_a_negative_count_is_an_error() -> None:
    """A count below zero is a bug in the measuring."""
    with pytest.raises(ValueError, match="below zero"):
        Group(entity="Bill", former="", known=-1)


replays_ = st.lists(
    st.builds(
        Replay,
        entity=st.sampled_from(TYPES),
        former=st.sampled_from(FORMERS),
        end=st.sampled_from(End),
        batch=st.integers(0, 3),
        error=st.sampled_from(["", "KeyError: <value>"]),
    ),
    max_size=25,
)
lefts = st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from(FORMERS)), max_size=30).map(
    lambda pairs: [
        Letter(id=str(n), entity=entity, former=former) for n, (entity, former) in enumerate(pairs)
    ]
)


@given(replays=replays_, left=lefts, data=st.data())
def test_the_order_within_a_batch_changes_nothing(
    replays: list[Replay], left: list[Letter], data: st.DataObject
) -> None:
    """Which letter of a batch settled first is chance: the next batch and what is set aside are the same."""
    shuffled = data.draw(st.permutations(replays))
    assert batch(left, shuffled) == batch(left, replays)
    assert group_letters(shuffled, left) == group_letters(replays, left)


@given(replays=replays_, left=lefts)
def test_a_letter_is_sent_or_set_aside_in_the_end(replays: list[Replay], left: list[Letter]) -> None:
    """An empty batch means that every letter that is left is set aside; none is forgotten, none is both."""
    chosen = batch(left, replays)
    aside = sum(each.letters for each in set_aside(group_letters(replays, left), LIMITS))
    assert len(chosen) + aside <= len(left)
    if not chosen:
        assert aside == len(left)


@given(left=lefts, hopeless=st.sets(st.integers(0, 29)), end=st.sampled_from(End))
def test_a_drain_ends_and_no_part_of_it_more_than_doubles(
    left: list[Letter], hopeless: set[int], end: End
) -> None:
    """Whatever fails: at most as many batches as letters, and each type's part is at most twice the former one."""
    if end is End.OPEN:
        return  # It would be open for ever.
    batches = played(left, frozenset(map(str, hopeless)), end)
    assert len(batches) <= len(left)
    for entity in TYPES:
        parts = [sum(letter.entity == entity for letter in each) for each in batches]
        parts = [part for part in parts if part]
        assert all(after <= 2 * before for before, after in pairwise(parts))
        assert parts[:1] in ([], [1])
