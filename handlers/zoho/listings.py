"""Where the records of each entity type are in the source's API, and what its lists leave out. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from handlers.queue.event import EntityType


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The list and the single records of one entity type."""

    entity: EntityType
    path: str
    """Of the list; a record is at path/ID."""
    list_key: str
    """The key of the rows in an answer of the list."""
    query: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Always sent: without it the list leaves records out."""
    sort_column: str = "last_modified_time"
    """Sorted by it, the newest come first. Empty: the list has no order that says anything."""
    has_filter: bool = False
    """Whether `last_modified_time` is documented as a filter. Lists that ignore it answer with everything."""
    from_row: tuple[str, ...] = ()
    """Keys that only the list row has."""


_ALL = MappingProxyType({"filter_by": "Status.All"})
"""Without it the list has active records only."""

LISTINGS: Mapping[EntityType, Listing] = MappingProxyType(
    {
        listing.entity: listing
        for listing in (
            Listing(
                entity=EntityType.USER,
                path="/books/v3/users",
                list_key="users",
                query=_ALL,
                sort_column="",
                # A single user has `email_ids` instead.
                from_row=("email",),
            ),
            Listing(
                entity=EntityType.CUSTOMER,
                path="/books/v3/contacts",
                list_key="contacts",
                query={**_ALL, "contact_type": "customer"},
            ),
            Listing(
                entity=EntityType.VENDOR,
                path="/books/v3/contacts",
                list_key="contacts",
                query={**_ALL, "contact_type": "vendor"},
            ),
            Listing(
                entity=EntityType.PRODUCT,
                path="/inventory/v1/items",
                list_key="items",
                query=_ALL,
                has_filter=True,
            ),
            Listing(
                entity=EntityType.PRICE_LIST,
                path="/inventory/v1/pricebooks",
                list_key="pricebooks",
                sort_column="",
                # Only the list says when it changed, and only the single record has its prices.
                from_row=("last_modified_time",),
            ),
            Listing(
                entity=EntityType.SALES_ORDER,
                path="/books/v3/salesorders",
                list_key="salesorders",
                has_filter=True,
            ),
            Listing(
                entity=EntityType.INVOICE, path="/books/v3/invoices", list_key="invoices", has_filter=True
            ),
            Listing(entity=EntityType.BILL, path="/books/v3/bills", list_key="bills", has_filter=True),
            Listing(
                entity=EntityType.PAYMENT, path="/books/v3/customerpayments", list_key="customerpayments"
            ),
            Listing(entity=EntityType.CREDIT_NOTE, path="/books/v3/creditnotes", list_key="creditnotes"),
            Listing(
                entity=EntityType.STOCK_ADJUSTMENT,
                path="/inventory/v1/inventoryadjustments",
                list_key="inventory_adjustments",
                sort_column="",
                from_row=("last_modified_time",),
            ),
        )
    }
)
"""By entity type, parents before children: so few events wait for their parent."""

STOCK_KEYS = (
    "stock_on_hand",
    "available_stock",
    "actual_available_stock",
    "committed_stock",
    "actual_committed_stock",
    "available_for_sale_stock",
    "actual_available_for_sale_stock",
    "quantity_in_transit",
)
"""The stock of an item in its list row. A sale may change it without a webhook and without a new change time."""
PLACE_KEYS = ("locations", "warehouses")
"""The same by place, only in the single record."""
