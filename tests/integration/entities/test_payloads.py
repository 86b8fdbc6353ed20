"""Every record of every example payload leaves a row that says what the payload says, field by field.

What the row must say is worked out here from the payload alone, without the mapper's readers.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.entities.compare import differences
from handlers.entities.document import Refusal
from handlers.entities.registry import HANDLERS, unwrap
from handlers.queue.event import EntityType, Outcome
from tests.integration.entities.events import (
    PAYLOADS,
    applied,
    event,
    example_records,
    lines,
    parents_of,
    row,
)

EXAMPLES = [found for found in example_records() if found[0] != "payment/6.json"]

NAMES: dict[EntityType, dict[str, str]] = {
    EntityType.PRODUCT: {"item_id": "zoho_item_id", "rate": "price", "item_name": "name"},
    EntityType.CUSTOMER: {"contact_id": "zoho_contact_id", "customer_name": "contact_name"},
    EntityType.VENDOR: {
        "contact_id": "zoho_vendor_id",
        "contact_name": "vendor_name",
        "customer_name": "vendor_name",
    },
    EntityType.INVOICE: {
        "invoice_id": "zoho_invoice_id",
        "date": "invoice_date",
        "salesorder_id": "zoho_salesorder_id",
    },
    EntityType.SALES_ORDER: {
        "salesorder_id": "zoho_salesorder_id",
        "salesorder_number": "order_number",
        "customer_id": "zoho_customer_id",
        "date": "order_date",
        "shipment_date": "actual_delivery_date",
        "sub_total": "subtotal",
        "tax_total": "tax_amount",
        "total": "total_amount",
        # One of two keys that can fill the ERP's column; `discount` is compared.
        "discount_amount": "",
        # The ERP's own number has this name.
        "branch_id": "",
    },
    EntityType.PAYMENT: {
        "payment_id": "zoho_payment_id",
        "customer_id": "zoho_customer_id",
        "date": "payment_date",
        "payment_mode": "payment_method",
        "currency_id": "zoho_currency_id",
    },
    EntityType.USER: {"user_id": "zoho_user_id", "user_role": "role"},
    EntityType.BILL: {"bill_id": "zoho_bill_id", "vendor_id": "zoho_vendor_id", "date": "bill_date"},
    EntityType.CREDIT_NOTE: {
        "creditnote_id": "zoho_creditnote_id",
        "customer_id": "zoho_customer_id",
        "date": "creditnote_date",
        "invoice_id": "zoho_invoice_id",
    },
    EntityType.STOCK_ADJUSTMENT: {"inventory_adjustment_id": "zoho_adjustment_id", "date": "adjustment_date"},
    EntityType.PRICE_LIST: {"pricebook_id": "zoho_pricelist_id", "currency_code": "currency"},
}
"""Where the ERP calls a column otherwise than the payload its key."""

LINES: dict[EntityType, tuple[str, str, str]] = {
    EntityType.INVOICE: ("line_items", "invoice_items", "invoice_id"),
    EntityType.SALES_ORDER: ("line_items", "sales_items", "sales_order_id"),
    EntityType.PAYMENT: ("invoices", "payment_applications", "payment_id"),
    EntityType.BILL: ("line_items", "bill_items", "bill_id"),
    EntityType.CREDIT_NOTE: ("line_items", "credit_note_items", "credit_note_id"),
    EntityType.STOCK_ADJUSTMENT: ("line_items", "stock_adjustment_items", "stock_adjustment_id"),
    EntityType.PRICE_LIST: ("pricebook_items", "product_prices", "pricelist_id"),
}

LINE_NAMES: dict[EntityType, dict[str, str]] = {
    EntityType.SALES_ORDER: {
        "rate": "unit_price",
        "item_total": "line_total",
        "quantity_delivered": "delivered_quantity",
        "discount_amount": "",
        "product_id": "",
    },
    EntityType.PAYMENT: {
        "invoice_id": "zoho_invoice_id",
        "invoice_payment_id": "zoho_invoice_payment_id",
        "total": "invoice_total",
        "invoice_amount": "invoice_total",
        "balance": "invoice_balance",
        "balance_amount": "invoice_balance",
        "date": "invoice_date",
    },
    EntityType.BILL: {"customer_id": "zoho_customer_id", "customer_name": "", "invoice_number": ""},
    EntityType.CREDIT_NOTE: {"invoice_id": "zoho_invoice_id"},
    EntityType.PRICE_LIST: {
        "pricebook_rate": "price",
        "pricebook_discount": "discount_percentage",
        "name": "item_name",
    },
}
LINE_NAMES_ALL = {
    "item_id": "zoho_item_id",
    "line_item_id": "zoho_line_item_id",
    "warehouse_id": "location_id",
    "warehouse_name": "location_name",
    "item_custom_fields": "custom_fields",
}

MATTERS = re.compile(
    r"^(status|name|sku|rate|unit|description|date|due_date|total|sub_total|tax_total|balance|payment_made|discount"
    r"|credits_applied|shipping_charge|adjustment|amount|unused_amount|bank_charges|quantity|item_total|exchange_rate"
    r"|reference_number|currency_code|currency_id|payment_terms|notes|terms|email|phone|mobile|company_name"
    r"|contact_name|contact_type|reason|adjustment_type|quantity_adjusted|percentage|pricebook_rate|amount_applied"
    r"|.*_stock|stock_on_hand|purchase_rate|reorder_level|created_time|last_modified_time|updated_time|.*_number"
    r"|customer_id|vendor_id|customer_name|item_id|billing_address|shipping_address|custom_fields|user_role"
    r"|salesperson_id|account_id|location_id|.*_date|.*_amount|.*_amount_withheld|payment_discount|credit_limit|outstanding_.*|unused_credits_.*|role_id)$"
)
"""Keys that must reach a column; anything else may live in the raw record alone."""

ELSEWHERE = {
    "contact_number",
    "offline_created_date",
    "submitted_date",
    "consent_date",
    "created_date",
    "last_reminder_sent_date",
    "permit_number",
    "siret_number",
    "track_serial_number",
    "track_batch_number",
    "stop_reminder_until_payment_expected_date",
}


def same(said: Any, stored: Any) -> bool:
    """Whether a stored value is what the payload says, by value."""
    if said is None or (isinstance(said, str) and not said.strip()):
        return stored is None or stored == []
    if isinstance(said, bool) or isinstance(stored, bool):
        return str(said).lower() == str(stored).lower()
    if isinstance(stored, dict | list):
        wanted = json.loads(json.dumps(said), parse_float=Decimal)
        return wanted in (stored, [stored])
    text = repr(said) if isinstance(said, float) else str(said)
    if isinstance(stored, Decimal | int):
        return Decimal(text.rstrip("%")) == stored
    if re.match(r"\d{4}-\d\d-\d\dT", str(stored)):
        return datetime.fromisoformat(text) == datetime.fromisoformat(stored)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", str(stored)):
        return text[:10] == stored
    return text == stored


def disagreements(names: dict[str, str], said: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """Every key of *said* whose column says something else, or that has no column although it matters."""
    found = []
    for key, value in said.items():
        column = names.get(key, key)
        if not column or key.endswith(("_formatted", "_unformatted")):
            continue
        if column in stored:
            if not same(value, stored[column]):
                found.append(f"{key}={value!r}, {column}={stored[column]!r}")
        elif MATTERS.match(key) and key not in ELSEWHERE:
            found.append(f"{key} has no column")
    return found


def examples(entity: EntityType) -> list[tuple[str, dict[str, Any]]]:
    return [(file, record) for file, kind, record in EXAMPLES if kind is entity]


@pytest.mark.parametrize("entity", EntityType)
async def test_the_row_says_what_the_payload_says(engine: AsyncEngine, entity: EntityType) -> None:
    """Each record is applied alone, with its parents there; its row and its lines are compared with it."""
    wrong = []
    async with engine.connect() as tx:
        for file, record in examples(entity):
            async with tx.begin_nested() as alone:
                assert {result.outcome for result in await applied(tx, parents_of(entity, record))} <= {
                    Outcome.APPLIED
                }
                one = event(entity, record)
                (result,) = await applied(tx, [one])
                assert (result.outcome, result.reason) == (Outcome.APPLIED, ""), file
                stored = await row(tx, entity, one.key)
                assert stored is not None
                assert result.target == str(stored["id"])
                found = disagreements(NAMES[entity], record, stored)
                found += await line_disagreements(tx, entity, record, stored["id"])
                if stored["zoho_data"] != json.loads(json.dumps(record), parse_float=Decimal):
                    found.append("the raw record is another one")
                found += await differences(tx, entity, one.key, one.payload)
                wrong += [f"{file}: {sentence}" for sentence in found]
                await alone.rollback()
    assert wrong == []


async def line_disagreements(
    tx: AsyncConnection, entity: EntityType, record: dict[str, Any], own_id: int
) -> list[str]:
    """Where the lines of a record say something else than their payload."""
    if entity not in LINES:
        return []
    list_key, table, link = LINES[entity]
    said = record.get(list_key) or []
    found = await lines(tx, table, link, own_id)
    if len(found) != len(said):
        return [f"{table} has {len(found)} rows instead of {len(said)}"]
    names = {**LINE_NAMES_ALL, **LINE_NAMES.get(entity, {})}
    return [
        f"{table}: {sentence}"
        for line, stored in zip(said, found, strict=True)
        for sentence in disagreements(names, line, stored)
    ]


@pytest.mark.parametrize("entity", EntityType)
async def test_a_record_without_its_parents_waits_and_writes_nothing(
    engine: AsyncEngine, entity: EntityType
) -> None:
    """A missing parent is named, and there is neither a row nor a placeholder."""
    async with engine.connect() as tx:
        for file, record in examples(entity):
            async with tx.begin_nested() as alone:
                one = event(entity, record)
                (result,) = await applied(tx, [one])
                needed = parents_of(entity, record)
                assert result.outcome is (Outcome.WAITING if needed else Outcome.APPLIED), file
                assert all(f"{each.entity.value} {each.key}" in result.reason for each in needed[:5]), file
                if needed:
                    for each in (one, *needed):
                        assert await row(tx, each.entity, each.key) is None, file
                await alone.rollback()


def test_every_payload_gives_its_records_and_no_other() -> None:
    """What comes out of an envelope is what the manifest says is in it."""
    for file, entity, record in EXAMPLES:
        found = unwrap(entity, (PAYLOADS / file).read_text(encoding="utf-8"))
        wanted = json.loads(json.dumps(record), parse_float=Decimal)
        assert wanted in [one.data for one in found], file


def test_the_vendors_payment_is_the_only_example_that_is_refused() -> None:
    """One example is another kind of record under the same id name."""
    for entity, folder in ((entity, entity.value.lower()) for entity in HANDLERS):
        for path in sorted((PAYLOADS / folder).glob("*.json")):
            if path.parent.name == "payment" and path.name == "6.json":
                with pytest.raises(Refusal, match="vendorpayment"):
                    unwrap(entity, path.read_text(encoding="utf-8"))
            else:
                assert unwrap(entity, path.read_text(encoding="utf-8"))


DEDUCTIONS: dict[str, tuple[object, object]] = {
    "discount_amount": ("12.50", Decimal("12.50")),
    "total_retention_amount": (450.25, Decimal("450.25")),
    "early_payment_discount_amount": ("1.25E+2", Decimal(125)),
    "early_payment_discount_percentage": (2, 2),
    "early_payment_discount_due_days": ("10", "10"),
    "is_early_payment_discount_applicable": (True, True),
}
"""What the source sends, and what the column holds."""


@pytest.mark.parametrize("entity", [EntityType.INVOICE, EntityType.BILL, EntityType.CREDIT_NOTE])
async def test_money_that_is_not_paid_has_columns(engine: AsyncEngine, entity: EntityType) -> None:
    """Discounts, retention and the tax that is deducted on a line: not only the raw record has them."""
    line = {"line_item_id": "7", "quantity": 1, "tds_tax_amount": "3.75", "retention_amount": 4.5}
    handler = HANDLERS[entity]
    sent = {key: value for key, (value, _) in DEDUCTIONS.items()}
    record = {handler.id_keys[0]: "460000000000017", "line_items": [line], **sent}
    async with engine.connect() as tx:
        await applied(tx, [event(entity, record)])
        stored = await row(tx, entity, "460000000000017")
        assert stored is not None
        (stored_line,) = await lines(tx, *LINES[entity][1:], stored["id"])
    assert {key: stored[key] for key in DEDUCTIONS} == {key: held for key, (_, held) in DEDUCTIONS.items()}
    assert (stored_line["tds_tax_amount"], stored_line["retention_amount"]) == (
        Decimal("3.75"),
        Decimal("4.5"),
    )


async def test_a_refund_has_its_amount_in_the_base_currency(engine: AsyncEngine) -> None:
    """As in a list row of payments."""
    async with engine.connect() as tx:
        await applied(tx, [event(EntityType.PAYMENT, {"payment_id": "17", "bcy_refunded_amount": 2.5})])
        stored = await row(tx, EntityType.PAYMENT, "17")
        assert stored is not None
        assert stored["bcy_refunded_amount"] == Decimal("2.5")
