"""Folding versions of a record gives one result, whatever order they come in."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.entities.digest import digest, shape
from handlers.entities.fold import Folded, RecordChange, Stored, fold

NOON = datetime(2025, 11, 4, 12, tzinfo=UTC)


def change(minute: int, *, deleted: bool = False, arrived: int = 0, **data: Any) -> RecordChange:
    return RecordChange(
        data={"id": "1", **data},
        stamp=NOON + timedelta(minutes=minute),
        deleted=deleted,
        arrived=NOON + timedelta(hours=arrived),
    )


def stored(folded: Folded) -> Stored:
    return Stored(
        stamp=folded.stamp,
        arrived=folded.arrived,
        deleted_at=folded.deleted_at,
        data=folded.data,
        versions=folded.versions,
        tied=folded.tied,
    )


def one_by_one(changes: list[RecordChange]) -> Stored:
    """What is stored after the changes came each in a batch of its own."""
    state: Stored | None = None
    for each in changes:
        state = stored(fold(state, [each]))
    assert state is not None
    return state


_CHANGES = st.lists(
    st.builds(
        lambda minute, deleted, data: change(minute, deleted=deleted, **data),
        st.integers(0, 3),
        st.booleans(),
        st.dictionaries(
            st.sampled_from("abc"), st.integers(0, 2) | st.none() | st.text("xy", max_size=1), max_size=3
        ),
    ),
    min_size=1,
    max_size=5,
)


SENT, PAID = {"status": "sent", "balance": 5}, {"status": "paid", "balance": 0}


@pytest.mark.parametrize("number", range(8))
def test_of_two_versions_with_one_stamp_the_one_that_arrived_last_stays(number: int) -> None:
    """Sent, then paid, within a second: paid, in whatever order and batches they are applied."""
    sent, paid = change(0, arrived=1, number=number, **SENT), change(0, arrived=2, number=number, **PAID)
    for order in ([sent, paid], [paid, sent]):
        assert one_by_one(order).data["status"] == "paid"
        assert fold(None, order).data["status"] == "paid"


@pytest.mark.parametrize("batches", [(1, 1, 1), (2, 1), (1, 2), (3,)])
def test_the_first_arrival_of_a_version_counts(batches: tuple[int, ...]) -> None:
    """A webhook that is sent again says nothing new: what came between the two deliveries stays."""
    history = [change(0, arrived=1, **SENT), change(0, arrived=2, **PAID), change(0, arrived=3, **SENT)]
    outcomes = []
    for order in itertools.permutations(history):
        state, rest = None, list(order)
        for size in batches:
            state = stored(fold(state, rest[:size]))
            rest = rest[size:]
        outcomes.append(state)
    assert all(state == outcomes[0] for state in outcomes)
    assert outcomes[0] is not None
    assert outcomes[0].data["status"] == "paid"
    newer = stored(fold(outcomes[0], [change(1, arrived=4, **SENT)]))
    assert (newer.data["status"], newer.versions, newer.tied) == ("sent", {}, {})


@given(_CHANGES, st.randoms(use_true_random=False))
def test_any_order_any_number_of_times_gives_the_same_record(
    changes: list[RecordChange], chance: Any
) -> None:
    """Partial payloads, equal stamps and deletes included: the history has one outcome."""
    first = {}
    for at, each in enumerate(changes):
        first.setdefault((each.stamp, digest(each.data)), NOON + timedelta(hours=chance.choice([1, at])))
    changes = [each._replace(arrived=first[each.stamp, digest(each.data)]) for each in changes]
    again = changes + [chance.choice(changes) for _ in range(3)]
    chance.shuffle(again)
    wanted = one_by_one(changes)
    assert one_by_one(again) == wanted
    assert stored(fold(None, again)) == wanted
    half = len(again) // 2
    first = fold(None, again[: half or 1])
    assert stored(fold(stored(first), again[half or 1 :] or again)) == wanted


def test_a_newer_version_keeps_what_it_does_not_mention() -> None:
    """A key that is missing from a payload is left as it is; a blank one is cleared."""
    folded = fold(None, [change(0, a="old", b="old"), change(1, b="")])
    assert folded.data == {"id": "1", "a": "old", "b": ""}


def test_an_older_version_fills_only_what_no_newer_one_mentions() -> None:
    """An overtaken payload changes nothing that a newer one said."""
    newest = stored(fold(None, [change(5, a="new")]))
    folded = fold(newest, [change(1, a="old", b="only here")])
    assert folded.data == {"id": "1", "a": "new", "b": "only here"}
    assert folded.stamp == newest.stamp
    assert folded.owned == (frozenset({"b"}),)


def test_an_overtaken_version_changes_nothing() -> None:
    """When every key has a newer value, nothing is to be written."""
    newest = stored(fold(None, [change(5, a="new", b="new")]))
    assert not fold(newest, [change(1, a="old", b="old")]).changed


def test_the_same_version_again_changes_nothing() -> None:
    """A second delivery is no change, and still counts as carried by the record."""
    first = stored(fold(None, [change(5, a="x")]))
    again = fold(first, [change(5, a="x")])
    assert not again.changed
    assert again.owned == (frozenset({"id", "a"}),)


@pytest.mark.parametrize(
    ("one", "other"), [(True, 1), ([{"value": False}], [{"value": 0}]), ({"a": 1}, {"a": True})]
)
def test_true_and_one_are_two_versions_of_one_stamp(one: object, other: object) -> None:
    """Values that only Python takes for the same: which of them wins does not depend on the order."""
    first, second = change(0, a=one), change(0, a=other)
    ends = [
        fold(stored(fold(None, [before])), [after]).data["a"]
        for before, after in ((first, second), (second, first))
    ]
    assert repr(ends[0]) == repr(ends[1])


def test_of_two_versions_with_one_stamp_one_wins_as_a_whole() -> None:
    """Two changes in one second share a stamp; their values are never mixed."""
    one, other = change(0, status="paid", balance=0), change(0, status="open", balance=100)
    results = [fold(None, list(order)).data for order in itertools.permutations([one, other])]
    assert results[0] == results[1]
    assert results[0] in (one.data, other.data)


def test_a_delete_wins_over_its_own_stamp() -> None:
    """The body of a delete is the last record with the last stamp: the delete came after it."""
    last = change(3, a="x")
    gone = change(3, deleted=True, a="x")
    for order in itertools.permutations([last, gone]):
        assert fold(None, list(order)).deleted_at == last.stamp


def test_a_newer_version_after_a_delete_says_that_the_record_is_there() -> None:
    """A delete is not permanent: a record with a newer change exists."""
    for order in itertools.permutations([change(3, deleted=True, a="x"), change(4, a="y")]):
        assert fold(None, list(order)).deleted_at is None


def test_equal_content_has_one_digest_however_it_is_printed() -> None:
    """Key order and trailing zeros are not content."""
    assert digest({"a": Decimal("1.0"), "b": [1]}) == digest({"b": [Decimal("1.00")], "a": 1})
    assert digest({"a": "1"}) != digest({"a": 1})
    assert shape({"a": 1, "b": 2}) == shape({"b": 0, "a": 0}) != shape({"a": 1})
