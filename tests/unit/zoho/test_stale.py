"""When a record has to be read again: by its change time, and by what its list row says without one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from handlers.entities.base import READ_AT
from handlers.entities.known import Known
from handlers.queue.event import EntityType
from handlers.zoho.pages import ListRow
from handlers.zoho.stale import Need, difference, differing, need, part, row_differs, stock_need

AT = datetime(2025, 11, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
P, U, I, A = EntityType.PRODUCT, EntityType.USER, EntityType.INVOICE, EntityType.STOCK_ADJUSTMENT  # noqa: E741


def row(stamp: datetime | None = AT, **data: Any) -> ListRow:
    """A list row."""
    return ListRow(key="1", data={"item_id": "1", **data}, stamp=stamp)


def known(stamp: datetime | None = AT, deleted_at: datetime | None = None, **data: Any) -> Known:
    """What is stored."""
    return Known(stamp=stamp, deleted_at=deleted_at, data=data)


def test_what_is_not_stored_is_new() -> None:
    """Whatever its change time."""
    assert need(P, row(), None, None) is Need.NEW


@pytest.mark.parametrize(
    ("stored", "expected"),
    [(AT - HOUR, Need.CHANGED), (AT, Need.NOTHING), (AT + HOUR, Need.NOTHING), (None, Need.CHANGED)],
)
def test_only_a_newer_row_is_a_change(stored: datetime | None, expected: Need) -> None:
    """A webhook may have brought a newer version than the list has. A row of the old code has no time."""
    assert need(P, row(name="b"), known(stored, name="b"), None) is expected


def test_a_row_of_the_old_code_is_read() -> None:
    """Nobody knows of which time it is."""
    assert need(P, row(), Known(stamp=None, deleted_at=None, data=None), None) is Need.CHANGED


@pytest.mark.parametrize(("changed", "expected"), [(AT, Need.NOTHING), (AT + 2 * HOUR, Need.CHANGED)])
def test_a_deleted_record_comes_back_only_if_it_changed_after_its_end(
    changed: datetime, expected: Need
) -> None:
    """A list that was read before the delete still has it."""
    assert need(P, row(changed), known(AT, AT + HOUR), None) is expected


def test_other_values_with_the_same_change_time_are_a_drift() -> None:
    """A balance, a stock, or an invoice that is overdue by now."""
    assert need(I, row(status="overdue"), known(status="sent"), None) is Need.DRIFTED


def test_a_drift_that_was_harmless_is_not_looked_into_again() -> None:
    """Until it differs in another way."""
    listed, stored = row(name="a "), known(name="b")
    assert stored.data is not None
    same = difference(row_differs(P, listed, stored.data), listed.data, stored.data)
    assert need(P, listed, stored, same) is Need.NOTHING
    assert need(P, row(name="c"), stored, same) is Need.DRIFTED
    assert need(P, listed, known(name="d"), same) is Need.DRIFTED


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Decimal("12.50"), "12.5"),
        (0, Decimal("0.00")),
        ("", None),
        ([], ""),
        ("a ", "a"),
        ({"x": 1, "x_formatted": "Rs. 1"}, {"x": "1"}),
        ({}, ""),
    ],
)
def test_a_difference_of_form_is_none(ours: object, theirs: object) -> None:
    """Lists and records write one value in several forms."""
    assert differing(P, {"rate": ours}, {"rate": theirs}) == []


@pytest.mark.parametrize(
    ("ours", "theirs"), [(True, 1), ("a", "b"), (0, None), (1, Decimal("1.01")), ([1], [2]), ([{"a": 1}], [])]
)
def test_a_difference_of_value_is_one(ours: object, theirs: object) -> None:
    """Blank is not zero, and yes is not one."""
    assert differing(P, {"rate": ours}, {"rate": theirs}) == ["rate"]


def test_keys_that_fill_no_column_say_nothing() -> None:
    """Lists have keys of their own, and formatted texts change with the language."""
    assert differing(P, {"rate_formatted": "a", "item_id": "2", "last_modified_time": "x"}, {}) == []


def test_a_row_counts_only_with_keys_that_are_stored() -> None:
    """A list says some things under other names; the record decides."""
    assert row_differs(P, row(name="a", sku="s"), {"name": "a"}) == []


def test_records_without_a_change_time_are_read_again_while_they_are_young() -> None:
    """The list of stock adjustments says nothing of their lines."""
    since = date(2025, 10, 1)
    young, old = row(None, date="2025-11-01"), row(None, date="2025-09-30")
    assert need(A, young, known(AT, date="2025-11-01"), None, since=since) is Need.CHANGED
    assert need(A, old, known(AT, date="2025-09-30"), None, since=since) is Need.NOTHING
    assert need(A, young, known(AT, date="2025-11-01"), None) is Need.NOTHING
    assert need(U, row(None, name="x"), known(AT, name="x"), None, since=since) is Need.CHANGED
    assert need(U, row(None, name="y"), known(AT, name="x"), None) is Need.CHANGED


def test_a_part_has_its_id_and_the_time_of_reading() -> None:
    """It is a version of its own, so the rest of the record keeps its versions."""
    record = {
        "item_id": "1",
        "name": "n",
        "stock_on_hand": 4,
        "last_modified_time": "2025-11-04T15:20:11+0300",
    }
    assert part(P, record, ["stock_on_hand"], "1", AT.isoformat()) == {
        "item_id": "1",
        "stock_on_hand": 4,
        READ_AT: AT.isoformat(),
    }


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (known(stock_on_hand=4), Need.DRIFTED),
        (known(stock_on_hand="5.00"), Need.NOTHING),
        (known(name="other"), Need.NOTHING),
        (known(AT, AT, stock_on_hand=4), Need.NOTHING),
        (None, Need.NOTHING),
    ],
)
def test_a_stock_sync_looks_at_the_stock_alone(stored: Known | None, expected: Need) -> None:
    """Of items that are stored; other changes are the business of the other syncs."""
    assert stock_need(row(AT + HOUR, stock_on_hand=5, name="n"), stored, None) is expected
