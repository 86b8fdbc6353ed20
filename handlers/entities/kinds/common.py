"""The columns that all trade documents share, in their headers and lines."""

from __future__ import annotations

from collections.abc import Callable

from handlers.entities.parse import BOOLEAN, ID, INSTANT, INTEGER, LIST, NUMBER, OBJECT, PERCENT, TEXT
from handlers.entities.spec import Column, Data, column, columns, line_no
from handlers.queue.event import EntityType


def is_percent(value: object) -> bool:
    return isinstance(value, str) and value.rstrip().endswith("%")


def discount_is_percent(record: Data) -> object:
    """Whether a discount is a percentage, marked by its sign, or an amount; None if it is blank."""
    value = record.get("discount")
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return is_percent(value)


DISCOUNT: tuple[Column, ...] = (
    *columns("discount", PERCENT),
    column("discount_is_percent", BOOLEAN, "discount", take=discount_is_percent),
)

PLACE: tuple[Column, ...] = (
    column("location_id", ID, "location_id warehouse_id branch_id"),
    column("location_name", TEXT, "location_name warehouse_name branch_name"),
)

DOCUMENT: tuple[Column, ...] = (
    *columns("reference_number", TEXT),
    *columns("currency_id", ID),
    *columns("currency_code currency_symbol", TEXT),
    *columns("exchange_rate", NUMBER),
    *columns("price_precision", INTEGER),
    *PLACE,
    *DISCOUNT,
    *columns("discount_total", NUMBER),
    *columns("discount_percent", PERCENT),
    *columns("discount_type", TEXT),
    *columns("is_discount_before_tax is_inclusive_tax", BOOLEAN),
    *columns("adjustment roundoff_value", NUMBER),
    *columns("sub_total_inclusive_of_tax discount_applied_on_amount reverse_charge_tax_total", NUMBER),
    *columns("adjustment_description", TEXT),
    *columns("bcy_sub_total bcy_tax_total bcy_total bcy_discount_total bcy_adjustment", NUMBER),
    *columns("terms", TEXT),
    *columns("custom_fields taxes", LIST),
    *columns("gst_no gst_treatment tax_treatment vat_treatment place_of_supply", TEXT),
    *columns("template_id", ID),
    *columns("template_name", TEXT),
    *columns("created_time last_modified_time", INSTANT),
    *columns("created_by_id", ID),
    # The key in bills is `last_modified_id`.
    column("last_modified_by_id", ID, "last_modified_by_id last_modified_id"),
)

DEDUCTIONS: tuple[Column, ...] = (
    # What the customer or we do not pay, or not yet.
    *columns("discount_amount total_retention_amount early_payment_discount_amount", NUMBER),
    *columns("early_payment_discount_percentage", PERCENT),
    # Blank or a number of days, as text.
    *columns("early_payment_discount_due_days", TEXT),
    *columns("is_early_payment_discount_applicable", BOOLEAN),
    *columns("retention_items", LIST),
)

ADDRESSES = columns("billing_address shipping_address", OBJECT)
SALESPERSON = (*columns("salesperson_id", ID), *columns("salesperson_name", TEXT))
SHIPPING = columns(
    "shipping_charge bcy_shipping_charge shipping_charge_inclusive_of_tax shipping_charge_exclusive_of_tax",
    NUMBER,
)
TERMS = (*columns("payment_terms", INTEGER), *columns("payment_terms_label", TEXT))

LINE: tuple[Column, ...] = (
    line_no(),
    column("product_id", ID, "item_id", parent=EntityType.PRODUCT, local=True),
    column("zoho_item_id", ID, "item_id"),
    column("zoho_line_item_id", ID, "line_item_id"),
    *columns("sku name description unit", TEXT),
    *columns("item_order", INTEGER),
    *columns("quantity", NUMBER),
)
LINE_FIGURES: tuple[Column, ...] = (
    *columns("rate item_total bcy_rate", NUMBER),
    *DISCOUNT,
    *columns("discount_amount", NUMBER),
)
LINE_REST: tuple[Column, ...] = (
    *columns("item_type product_type", TEXT),
    *columns("purchase_rate sales_rate cost_amount item_sub_total", NUMBER),
    *columns("tax_id", ID),
    *columns("tax_name tax_type", TEXT),
    *columns("tax_percentage", PERCENT),
    *columns("tds_tax_id", ID),
    *columns("tds_tax_amount retention_amount", NUMBER),
    *columns("hsn_or_sac", TEXT),
    *columns("account_id", ID),
    *columns("account_name", TEXT),
    column("location_id", ID, "location_id warehouse_id"),
    column("location_name", TEXT, "location_name warehouse_name"),
    *columns("project_id header_id", ID),
    *columns("project_name header_name", TEXT),
    *columns("serial_numbers batches mapped_items tags", LIST),
    column("custom_fields", LIST, "item_custom_fields"),
)
CUSTOMER: tuple[Column, ...] = (
    column("customer_id", ID, parent=EntityType.CUSTOMER),
    *columns("customer_name", TEXT),
)


def percentage_only(key: str) -> Callable[[Data], object]:
    """The discount if it is a percentage, otherwise the value of *key*."""

    def take(record: Data) -> object:
        value = record.get("discount")
        return value if is_percent(value) else record.get(key)

    return take


def amount_only(key: str) -> Callable[[Data], object]:
    """The discount if it is an amount, otherwise the value of *key*."""

    def take(record: Data) -> object:
        value = record.get("discount")
        return record.get(key) if value is None or is_percent(value) else value

    return take
