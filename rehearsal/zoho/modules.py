"""The modules of the stand-in, as the source has them, and what each leaves out in lists and in single records.

Written from what is known of the source and not from our client, so that one does not confirm the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from handlers.queue.event import EntityType

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Module:
    """One address of the API."""

    path: str
    list_key: str
    detail_key: str
    id_key: str
    has_inactive: bool = False
    """Its list has active records only, unless it is asked for all."""
    takes_filter: bool = False
    """Whether `last_modified_time` filters; the others take it and answer with everything."""
    takes_order: bool = True
    detail_lacks: tuple[str, ...] = ()


_ONLY_IN_DETAIL = frozenset(
    [
        "line_items",
        "billing_address",
        "shipping_address",
        "contact_persons",
        "custom_fields",
        "taxes",
        "notes",
        "terms",
        "locations",
        "warehouses",
        "package_details",
        "pricebook_items",
        "invoices",
        "packages",
        "purchaseorders",
        "salesreturns",
        "documents",
        "payments",
        "vendor_credits",
        "price_brackets",
        "bank_accounts",
        "addresses",
        "email_ids",
        "branches",
    ]
)

MODULES: Mapping[EntityType, Module] = MappingProxyType(
    {
        EntityType.USER: Module(
            path="/books/v3/users",
            list_key="users",
            detail_key="user",
            id_key="user_id",
            has_inactive=True,
            takes_order=False,
            detail_lacks=("email", "last_modified_time"),
        ),
        EntityType.CUSTOMER: Module(
            path="/books/v3/contacts",
            list_key="contacts",
            detail_key="contact",
            id_key="contact_id",
            has_inactive=True,
        ),
        EntityType.VENDOR: Module(
            path="/books/v3/contacts",
            list_key="contacts",
            detail_key="contact",
            id_key="contact_id",
            has_inactive=True,
        ),
        EntityType.PRODUCT: Module(
            path="/inventory/v1/items",
            list_key="items",
            detail_key="item",
            id_key="item_id",
            has_inactive=True,
            takes_filter=True,
        ),
        EntityType.PRICE_LIST: Module(
            path="/inventory/v1/pricebooks",
            list_key="pricebooks",
            detail_key="pricebook",
            id_key="pricebook_id",
            takes_order=False,
            detail_lacks=("last_modified_time",),
        ),
        EntityType.SALES_ORDER: Module(
            path="/books/v3/salesorders",
            list_key="salesorders",
            detail_key="salesorder",
            id_key="salesorder_id",
            takes_filter=True,
        ),
        EntityType.INVOICE: Module(
            path="/books/v3/invoices",
            list_key="invoices",
            detail_key="invoice",
            id_key="invoice_id",
            takes_filter=True,
        ),
        EntityType.BILL: Module(
            path="/books/v3/bills", list_key="bills", detail_key="bill", id_key="bill_id", takes_filter=True
        ),
        EntityType.PAYMENT: Module(
            path="/books/v3/customerpayments",
            list_key="customerpayments",
            detail_key="payment",
            id_key="payment_id",
        ),
        EntityType.CREDIT_NOTE: Module(
            path="/books/v3/creditnotes",
            list_key="creditnotes",
            detail_key="creditnote",
            id_key="creditnote_id",
        ),
        EntityType.STOCK_ADJUSTMENT: Module(
            path="/inventory/v1/inventoryadjustments",
            list_key="inventory_adjustments",
            detail_key="inventory_adjustment",
            id_key="inventory_adjustment_id",
            takes_order=False,
            detail_lacks=("last_modified_time",),
        ),
    }
)


def row_of(entity: EntityType, record: Record) -> dict[str, Any]:
    """A record as its list has it: without lines and addresses, and with some names of its own."""
    row = {key: value for key, value in record.items() if key not in _ONLY_IN_DETAIL}
    if entity is EntityType.STOCK_ADJUSTMENT:
        row.pop("last_modified_time", None)
    if entity is EntityType.PRICE_LIST and "name" in row:
        row["name"] = f"{row['name']} "
    if entity is EntityType.PAYMENT:
        row["last_modified_time"] = row.pop("updated_time", row.get("last_modified_time", ""))
        row["invoice_numbers"] = ",".join(
            line.get("invoice_number", "") for line in record.get("invoices") or []
        )
    if entity is EntityType.USER:
        row.pop("last_modified_time", None)
    return row


def detail_of(entity: EntityType, record: Record) -> dict[str, Any]:
    """A record as it is alone."""
    module = MODULES[entity]
    detail = {key: value for key, value in record.items() if key not in module.detail_lacks}
    if entity is EntityType.USER:
        detail["email_ids"] = [{"email": record.get("email", ""), "is_selected": True}]
    if entity is EntityType.PAYMENT and "last_modified_time" in detail:
        detail["updated_time"] = detail.pop("last_modified_time")
    return detail
