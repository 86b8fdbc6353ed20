"""What each kind of record accepts and refuses, before any database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from handlers.entities.document import Refusal
from handlers.entities.registry import HANDLERS, handler, source_key, unwrap, unwrap_each
from handlers.entities.spec import Mapped
from handlers.queue.event import EntityType

READ_AT = datetime(2025, 11, 5, tzinfo=UTC)


def mapped(entity: EntityType, record: dict[str, Any]) -> dict[str, str | None]:
    """The values of a record's row by column, without those it says nothing about."""
    one = handler(entity)
    said: Mapped = one.map(record)
    return {
        column.name: said.values[at] for at, column in enumerate(one.table.columns) if at not in said.missing
    }


def refusal(entity: EntityType, record: dict[str, Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        handler(entity).map(record)
    return caught.value


def test_all_eleven_kinds_have_a_handler() -> None:
    """No kind of record is left to a stub."""
    assert set(HANDLERS) == set(EntityType)
    for entity, one in HANDLERS.items():
        assert one.entity is entity


def test_a_table_declares_each_column_once() -> None:
    """Two declarations of one column would write it twice."""
    for one in HANDLERS.values():
        named = {child.name: child.columns for child in one.table.children} | {
            one.table.name: one.table.columns
        }
        for table, declared in named.items():
            names = [column.name for column in declared]
            assert len(names) == len(set(names)), table


@pytest.mark.parametrize("said", ["vendor", "", " ", None, "lead", 7])
def test_a_contact_that_is_no_customer_is_refused_for_a_customer(said: object) -> None:
    """`contact_type` decides; blank and unknown are refused, never guessed."""
    record = {"contact_id": "1", "contact_name": "A", "contact_type": said, "customer_name": "A"}
    assert refusal(EntityType.CUSTOMER, record).field == "contact_type"


def test_a_contact_without_a_type_is_neither_customer_nor_vendor() -> None:
    """Every contact has keys with both names, so no other key can replace the type."""
    record = {"contact_id": "1", "customer_name": "A", "vendor_name": "A"}
    for entity in (EntityType.CUSTOMER, EntityType.VENDOR):
        refused = handler(entity).unknown_type(record)
        assert refused is not None
        assert refused.field == "contact_type"
        assert handler(entity).unknown_type({"contact_id": "1", "last_modified_time": "x"}) is None
    assert handler(EntityType.USER).unknown_type({"user_id": "1", "name": "A"}) is None


def test_a_payment_to_a_vendor_is_not_a_payment_of_a_customer() -> None:
    """The two share the name of their id, and nothing else."""
    body = json.dumps({"vendorpayment": {"payment_id": "1", "amount": 5}})
    with pytest.raises(Refusal, match="payment to a vendor"):
        unwrap(EntityType.PAYMENT, body)


ENVELOPES = [
    {"item": {"item_id": "7", "name": "A"}},
    {"code": 0, "message": "success", "item": {"item_id": "7", "name": "A"}},
    {"code": 0, "message": "success", "items": [{"item_id": "7", "name": "A"}], "page_context": {"page": 1}},
    {"items": {"item_id": "7", "name": "A"}},
    {"item": [{"item_id": "7", "name": "A"}]},
    {"item_id": "7", "name": "A"},
    {"payload": json.dumps({"item": {"item_id": "7", "name": "A"}})},
    {"JSONString": json.dumps({"item_id": "7", "name": "A"})},
    {"item": json.dumps({"item_id": "7", "name": "A"})},
    {"event_type": "x", "entity_id": "7", "data": {"item_id": "7", "name": "A"}},
    [{"item_id": "7", "name": "A"}],
    json.dumps({"item": {"item_id": "7", "name": "A"}}),
    [{"item": {"item_id": "7", "name": "A"}}],
]


@pytest.mark.parametrize("envelope", ENVELOPES, ids=range(len(ENVELOPES)))
def test_every_envelope_gives_the_same_record(envelope: object) -> None:
    """Wrapped, listed, flat, or once more as text: the record is the same."""
    (record,) = unwrap(EntityType.PRODUCT, json.dumps(envelope))
    assert record.data == {"item_id": "7", "name": "A"}
    raw, path = record.raw()
    inner: Any = json.loads(raw)
    for key in filter(None, path.strip("{}").split(",")):
        inner = inner[key]
    assert inner == record.data


FIELDS = ["JSONString", "payload", "item", "data"]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "record", [{"item_id": "7", "name": "A & B=é"}, {"item": {"item_id": "7", "name": "A & B=é"}}]
)
def test_a_form_holds_the_record_in_a_field(field: str, record: dict[str, Any]) -> None:
    """A form-encoded body is read where it is, with JSON text in one of its fields."""
    if field == "item" and "item" in record:
        record = record["item"]
    body = urlencode({"organization_id": "10", field: json.dumps(record)})
    (found,) = unwrap(EntityType.PRODUCT, body)
    assert found.data == {"item_id": "7", "name": "A & B=é"}
    raw, path = found.raw()
    inner: Any = json.loads(raw)
    for key in filter(None, path.strip("{}").split(",")):
        inner = inner[key]
    assert inner == found.data


def test_what_is_wrong_with_one_element_hides_no_other() -> None:
    """Each element of a list gets its own result: records, invalid elements, and wrapped records."""
    bare = unwrap_each(EntityType.PRODUCT, '{"items": [{"item_id": "1"}, "x", null, {"item_id": "2"}]}')
    assert [one.field if isinstance(one, Refusal) else one.data["item_id"] for one in bare] == [
        "1",
        "items[1]",
        "items[2]",
        "2",
    ]
    wrapped = unwrap_each(EntityType.PRODUCT, '[{"item": {"item_id": "1"}}, {"item": {"item_id": "2"}}, {}]')
    assert [one.data.get("item_id") for one in wrapped if not isinstance(one, Refusal)] == ["1", "2", None]


@pytest.mark.parametrize(
    "body", ["", " \n", "payload=", "item=", '""', '{"payload": ""}', '{"payload": null}', '{"item": " "}']
)
def test_a_check_call_is_said_to_be_one(body: str) -> None:
    """Saving a webhook at the source sends an empty sample: no record, and nothing broken either."""
    with pytest.raises(Refusal, match="check call") as caught:
        unwrap(EntityType.PRODUCT, body)
    assert caught.value.absent


def test_a_key_that_says_the_same_twice_is_taken() -> None:
    """A duplicate key is ambiguous only if its values differ; 1 and true differ."""
    (record,) = unwrap(EntityType.PRODUCT, '{"item_id": "1", "rate": 1.0, "rate": 1.0}')
    assert source_key(EntityType.PRODUCT, record.data) == "1"
    with pytest.raises(Refusal, match="duplicate key"):
        unwrap(EntityType.PRODUCT, '{"item_id": "1", "is_taxable": 1, "is_taxable": true}')


def test_a_flat_record_may_have_a_field_called_like_a_wrapper() -> None:
    """A field with the name of a wrapper does not hide its record."""
    body = {"contact_id": "1", "contact": "Mr A", "contact_type": "customer"}
    (record,) = unwrap(EntityType.CUSTOMER, json.dumps(body))
    assert record.data == body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"payload": ""}, "payload"),
        ({}, "(body)"),
        ([], "(body)"),
        ({"items": []}, "items"),
        ({"items": [1]}, "items[0]"),
        ({"item": None}, "item"),
        ({"item": 5}, "item"),
        ({"invoice": {"invoice_id": "1"}}, "(body)"),
        ({"code": 5, "message": "Invalid URL"}, "code"),
        (5, "(body)"),
        (None, "(body)"),
    ],
)
def test_a_body_without_a_record_is_refused_with_what_is_wrong(body: object, field: str) -> None:
    """Check calls, empty lists, errors of the source and other kinds of record are no records."""
    with pytest.raises(Refusal) as caught:
        unwrap(EntityType.PRODUCT, json.dumps(body))
    assert caught.value.field == field


@pytest.mark.parametrize("key", [None, "", " ", 1.5, True, {}, [], "1.0", "2.6E+18"])
def test_a_record_without_an_id_is_refused(key: object) -> None:
    """An id that is blank, or went through a float, names nothing."""
    with pytest.raises(Refusal) as caught:
        source_key(EntityType.PRODUCT, {"item_id": key})
    assert caught.value.field == "item_id"


def test_missing_is_not_blank() -> None:
    """A missing key says nothing about its column, a blank one clears it."""
    said = mapped(EntityType.PRODUCT, {"item_id": "1", "rate": ""})
    assert said["price"] is None
    assert "sku" not in said


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"status": "active"}, "true"),
        ({"status": "inactive"}, "false"),
        ({"status": "inactive", "is_active": True}, "false"),
        ({"status": "", "is_active": "true"}, "true"),
        ({"is_active": False}, "false"),
        ({"status": ""}, None),
    ],
)
def test_the_status_of_the_source_decides_whether_a_product_is_active(
    record: dict[str, Any], wanted: str | None
) -> None:
    """`status` decides; `is_active` only counts without it, and neither means unknown."""
    assert mapped(EntityType.PRODUCT, {"item_id": "1", **record})["is_active"] == wanted


def test_every_fault_is_named_and_the_first_is_the_field() -> None:
    """A record with several faults says them all at once, lines with their place in the list."""
    found = refusal(
        EntityType.INVOICE,
        {
            "invoice_id": "1",
            "date": "soon",
            "total": "much",
            "line_items": [{}, {"rate": "x", "item_id": 1.5}],
        },
    )
    assert found.field == "date"
    for field in ("date", "total", "line_items[1].rate", "line_items[1].item_id"):
        assert f"{field}: " in f"{found.field}: {found.reason}"


@pytest.mark.parametrize("value", ["", " ", [], None])
def test_a_blank_list_of_lines_is_no_lines(value: object) -> None:
    """Lists come blank as text; then the record has no lines, which is not the same as saying nothing."""
    assert handler(EntityType.INVOICE).map({"invoice_id": "1", "line_items": value}).children == {
        "invoice_items": []
    }
    assert handler(EntityType.INVOICE).map({"invoice_id": "1"}).children == {}


@pytest.mark.parametrize("value", ["x", 5, True, [5], ["a"], [[]]])
def test_lines_that_are_no_lines_are_refused(value: object) -> None:
    """A list of something else is refused under the list's name."""
    assert refusal(EntityType.INVOICE, {"invoice_id": "1", "line_items": value}).field.startswith(
        "line_items"
    )


def test_a_free_line_needs_no_product() -> None:
    """A line without an item is a line of text, and waits for no parent."""
    said = handler(EntityType.INVOICE).map(
        {"invoice_id": "1", "line_items": [{"item_id": "", "name": "", "description": "work", "quantity": 1}]}
    )
    assert said.parents == ()
    assert len(said.children["invoice_items"]) == 1


def test_a_blank_price_is_no_price_and_zero_is_one() -> None:
    """On a price list blank means that the list has no price of its own; 0 is a price."""
    one = handler(EntityType.PRICE_LIST)
    said = one.map(
        {
            "pricebook_id": "1",
            "pricebook_items": [
                {"item_id": "1", "pricebook_rate": ""},
                {"item_id": "2", "pricebook_rate": 0},
            ],
        }
    )
    at = [column.name for column in one.table.children[0].columns].index("price")
    assert [line[at] for line in said.children["product_prices"]] == [None, "0"]


def test_one_item_stands_once_on_a_price_list() -> None:
    """Two prices for one item are no price: refused, with the second one's place."""
    items = [{"item_id": "1", "pricebook_rate": 1}, {"item_id": 1, "pricebook_rate": 2}]
    assert refusal(EntityType.PRICE_LIST, {"pricebook_id": "1", "pricebook_items": items}).field == (
        "pricebook_items[1].item_id"
    )


def test_brackets_of_a_volume_list_are_kept_with_their_item() -> None:
    """Volume prices are brackets, whose open end is blank."""
    items = [
        {
            "item_id": "1",
            "pricing_scheme": "volume",
            "price_brackets": [
                {"start_quantity": 1, "end_quantity": 9, "pricebook_rate": 10},
                {"start_quantity": 10, "end_quantity": "", "pricebook_rate": "9.50"},
            ],
        }
    ]
    one = handler(EntityType.PRICE_LIST)
    lines = one.map({"pricebook_id": "1", "pricebook_items": items}).children["product_price_brackets"]
    names = [column.name for column in one.table.children[1].columns]
    read = [dict(zip(names, line, strict=True)) for line in lines]
    assert [
        (line["zoho_item_id"], line["start_quantity"], line["end_quantity"], line["price"]) for line in read
    ] == [
        ("1", "1", "9", "10"),
        ("1", "10", None, "9.50"),
    ]


def test_an_unknown_way_of_adjusting_is_refused() -> None:
    """Quantity and value are known; a third way would be guesswork with stock."""
    assert refusal(
        EntityType.STOCK_ADJUSTMENT, {"inventory_adjustment_id": "1", "adjustment_type": "both"}
    ).field == ("adjustment_type")


def test_adjustments_have_no_way_to_the_stock() -> None:
    """No column of a product is filled from an adjustment: replaying one can never move stock."""
    one = handler(EntityType.STOCK_ADJUSTMENT)
    assert {one.table.name, *(child.name for child in one.table.children)} == {
        "stock_adjustments",
        "stock_adjustment_items",
    }


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"email": "a@example.com"}, "a@example.com"),
        (
            {"email_ids": [{"email": "b@example.com"}, {"email": "c@example.com", "is_selected": True}]},
            "c@example.com",
        ),
        ({"email": "", "email_ids": [{"email": "b@example.com"}]}, "b@example.com"),
        ({"email": ""}, None),
        ({"email_ids": ""}, None),
    ],
)
def test_a_users_address_is_the_one_that_is_selected(record: dict[str, Any], wanted: str | None) -> None:
    """A list row has one address, a single record a list of which one is selected."""
    assert mapped(EntityType.USER, {"user_id": "1", **record})["email"] == wanted


def test_a_discount_in_percent_is_not_an_amount() -> None:
    """`10.00%` and `10.00` are different discounts, and the row says which."""
    percent = mapped(EntityType.SALES_ORDER, {"salesorder_id": "1", "discount": "10.00%"})
    amount = mapped(EntityType.SALES_ORDER, {"salesorder_id": "1", "discount": "10.00"})
    assert (percent["discount_percentage"], percent["discount_amount"]) == ("10.00", None)
    assert (amount["discount_percentage"], amount["discount_amount"]) == (None, "10.00")
    assert (percent["discount_is_percent"], amount["discount_is_percent"]) == ("true", "false")


def test_what_the_erp_knows_about_paying_is_never_overwritten() -> None:
    """Replaying an order must not wipe the payment state that the ERP keeps in the same row."""
    names = {column.name for column in handler(EntityType.SALES_ORDER).table.columns}
    assert not names & {
        "payment_status",
        "payment_method",
        "paid_amount",
        "branch_id",
        "warehouse_id",
        "created_by",
    }


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"last_modified_time": "2025-11-04T15:00:00+0300"}, datetime(2025, 11, 4, 12, tzinfo=UTC)),
        ({"updated_time": "2025-11-04T15:00:00+0300"}, datetime(2025, 11, 4, 12, tzinfo=UTC)),
        (
            {"last_modified_time": "", "updated_time": "2025-11-04T12:00:00Z"},
            datetime(2025, 11, 4, 12, tzinfo=UTC),
        ),
        ({"created_time": "2025-11-04T12:00:00Z"}, READ_AT),
        ({}, READ_AT),
    ],
)
def test_a_record_is_as_old_as_its_stamp_and_else_as_its_event(
    record: dict[str, Any], wanted: datetime
) -> None:
    """The time of creation is no stamp: two versions of one record share it."""
    assert handler(EntityType.PAYMENT).stamp(record, READ_AT) == wanted


@pytest.mark.parametrize("stamp", ["yesterday", "2025-11-04T15:00:00", 5, "04/11/2025"])
def test_a_stamp_that_cannot_be_read_is_refused(stamp: object) -> None:
    """Without knowing how old a version is, it must not overwrite anything."""
    with pytest.raises(Refusal) as caught:
        handler(EntityType.PRODUCT).stamp({"last_modified_time": stamp}, READ_AT)
    assert caught.value.field == "last_modified_time"


@pytest.mark.parametrize(
    ("entity", "record", "field"),
    [
        (
            EntityType.PRODUCT,
            {"item_id": "1", "locations": [{"location_id": "5"}, {"location_stock_on_hand": "few"}]},
            "locations[1].location_stock_on_hand",
        ),
        (
            EntityType.PRODUCT,
            {"item_id": "1", "warehouses": [{"warehouse_id": "5", "warehouse_available_stock": "few"}]},
            "warehouses[0].warehouse_available_stock",
        ),
        (
            EntityType.PRODUCT,
            {"item_id": "1", "package_details": {"weight": "heavy"}},
            "package_details.weight",
        ),
        (EntityType.PRODUCT, {"item_id": "1", "weight": "heavy", "package_details": {"weight": 1}}, "weight"),
        (
            EntityType.PAYMENT,
            {"payment_id": "1", "invoices": [{"invoice_id": 1.5}]},
            "invoices[0].invoice_id",
        ),
        (EntityType.PAYMENT, {"payment_id": "1", "invoices": "INV-1"}, "invoices"),
        (EntityType.STOCK_ADJUSTMENT, {"adjustment_id": "1", "adjustment_type": 1}, "adjustment_type"),
    ],
)
def test_a_refusal_names_the_field_as_the_payload_has_it(
    entity: EntityType, record: dict[str, Any], field: str
) -> None:
    """The path can be found in the body, however the value reaches its column; and it is said once."""
    said = refusal(entity, record)
    assert said.field == field
    assert str(said).count("must be") == 1


@pytest.mark.parametrize("bills", [[], [{"bill_id": "5", "amount_applied": 5}]])
def test_a_payment_that_names_a_vendor_is_no_payment_of_a_customer(bills: object) -> None:
    """Flat, or in another envelope, a payment to a vendor is recognized by its vendor id."""
    record = {"payment_id": "1", "vendor_id": "7", "amount": 5, "bills": bills}
    assert refusal(EntityType.PAYMENT, record).field == "vendor_id"
    mapped(EntityType.PAYMENT, record | {"customer_id": "8"})
    mapped(EntityType.PAYMENT, record | {"vendor_id": ""})


def test_places_of_old_and_new_organisations_fill_the_same_columns() -> None:
    """`warehouse_*` and `location_*` are one thing under two names."""
    old = {"warehouse_id": "5", "warehouse_name": "Main", "warehouse_stock_on_hand": "2.5"}
    new = {"location_id": "5", "location_name": "Main", "location_stock_on_hand": "2.5"}
    one = handler(EntityType.PRODUCT)
    assert (
        one.map({"item_id": "1", "warehouses": [old]}).children
        == one.map({"item_id": "1", "locations": [new]}).children
    )
