"""Products with their stock for each location, price lists, and stock adjustments."""

from __future__ import annotations

from collections.abc import Callable

from handlers.entities.base import Handler
from handlers.entities.document import Refusal, shown
from handlers.entities.parse import BOOLEAN, DATE, ID, INSTANT, INTEGER, LIST, NUMBER, PERCENT, TEXT
from handlers.entities.spec import Child, Data, Table, column, columns, line_no, lines
from handlers.queue.event import EntityType


def is_active(record: Data) -> object:
    """The source's `status` decides; `is_active` only counts without it."""
    status = record.get("status")
    if isinstance(status, str) and status.strip():
        return status.strip().lower() == "active"
    return record.get("is_active")


def _in_package(name: str) -> Callable[[Data], object]:
    """Size and weight: top-level keys in lists, inside `package_details` in a single record."""

    def take(record: Data) -> object:
        if name in record:
            return record[name]
        package = record.get("package_details")
        return package.get(name) if isinstance(package, dict) else None

    return take


def _packed_path(name: str) -> Callable[[Data], str]:
    return lambda record: name if name in record else f"package_details.{name}"


def _place(name: str) -> str:
    """The keys of a location's value: `warehouse_*` in older organisations, `location_*` in newer ones."""
    return f"location_{name} warehouse_{name}"


_STOCK = "stock_on_hand available_stock actual_available_stock committed_stock actual_committed_stock"
_STOCK_MORE = "available_for_sale_stock actual_available_for_sale_stock quantity_in_transit"

PRODUCT = Handler(
    entity=EntityType.PRODUCT,
    # A composite item (kit) is an item with another id key at the source.
    id_keys=("item_id", "composite_item_id"),
    wrappers=("item", "items", "composite_item", "composite_items"),
    table=Table(
        name="products",
        key="zoho_item_id",
        columns=(
            column("name", TEXT, "name item_name"),
            *columns("sku description", TEXT),
            column("price", NUMBER, "rate"),
            column("stock_quantity", NUMBER, "stock_on_hand"),
            column("is_active", BOOLEAN, "status is_active", take=is_active),
            *columns("status unit item_type product_type", TEXT),
            *columns("purchase_rate sales_rate pricebook_rate", NUMBER),
            *columns("purchase_description brand manufacturer", TEXT),
            *columns("group_id", ID),
            *columns("group_name", TEXT),
            *columns("category_id", ID),
            *columns("category_name", TEXT),
            *columns(
                "is_taxable can_be_sold can_be_purchased track_inventory is_combo_product is_returnable",
                BOOLEAN,
            ),
            *columns("tax_id", ID),
            *columns("tax_name", TEXT),
            *columns("tax_percentage", PERCENT),
            *columns("tax_type", TEXT),
            *columns("account_id", ID),
            *columns("account_name", TEXT),
            *columns("purchase_account_id", ID),
            *columns("purchase_account_name", TEXT),
            *columns("inventory_account_id", ID),
            *columns("inventory_account_name", TEXT),
            *columns("vendor_id", ID),
            *columns("vendor_name", TEXT),
            *columns("stock_on_hand", NUMBER),
            *columns("available_stock actual_available_stock committed_stock actual_committed_stock", NUMBER),
            *columns(_STOCK_MORE, NUMBER),
            *columns("reorder_level minimum_order_quantity maximum_order_quantity", NUMBER),
            *columns("initial_stock initial_stock_rate total_initial_stock asset_value", NUMBER),
            *columns("sales_margin", PERCENT),
            *columns("upc ean isbn part_number hsn_or_sac", TEXT),
            *columns("image_name image_type", TEXT),
            *columns("image_document_id", ID),
            *(
                column(
                    name,
                    kind,
                    f"{name} package_details",
                    take=_in_package(name),
                    where=_packed_path(name),
                )
                for name, kind in (
                    *((name, NUMBER) for name in ("length", "width", "height", "weight")),
                    *((name, TEXT) for name in ("weight_unit", "dimension_unit")),
                )
            ),
            *columns("attribute_id1 attribute_id2 attribute_id3", ID),
            *columns("attribute_option_id1 attribute_option_id2 attribute_option_id3", ID),
            *columns("attribute_name1 attribute_name2 attribute_name3", TEXT),
            *columns("attribute_option_name1 attribute_option_name2 attribute_option_name3", TEXT),
            *columns("pricing_scheme inventory_valuation_method source", TEXT),
            *columns("tax_exemption_id", ID),
            *columns("tax_exemption_code", TEXT),
            # The parts of a kit.
            *columns("mapped_items item_tax_preferences price_brackets custom_fields tags", LIST),
            *columns("created_time last_modified_time", INSTANT),
        ),
        children=(
            Child(
                name="product_stock",
                link="product_id",
                keys=("locations", "warehouses"),
                lines=lines,
                columns=(
                    line_no(),
                    column("place_id", ID, _place("id")),
                    column("place_name", TEXT, _place("name")),
                    *columns("status", TEXT),
                    *columns("is_primary", BOOLEAN),
                    *(column(name, NUMBER, _place(name)) for name in (_STOCK + " " + _STOCK_MORE).split()),
                    *columns("initial_stock initial_stock_rate", NUMBER),
                ),
            ),
        ),
    ),
)


def _prices(value: object, record: Data) -> list[tuple[str, Data]]:
    """The items of a price list, each with the currency of the list."""
    return [
        (path, {"currency_code": record.get("currency_code"), **item}) for path, item in lines(value, record)
    ]


def _brackets(value: object, record: Data) -> list[tuple[str, Data]]:
    """The price brackets of all items of a price list, each with its item's id."""
    brackets = []
    for path, item in lines(value, record):
        for inner, bracket in lines(item.get("price_brackets"), record):
            brackets.append((f"{path}.price_brackets{inner}", {**bracket, "item_id": item.get("item_id")}))
    return brackets


PRICE_LIST = Handler(
    entity=EntityType.PRICE_LIST,
    id_keys=("pricebook_id", "pricelist_id"),
    wrappers=("pricebook", "pricebooks", "pricelist", "pricelists", "price_list", "price_lists"),
    table=Table(
        name="pricelists",
        key="zoho_pricelist_id",
        columns=(
            *columns("name", TEXT),
            column("currency", TEXT, "currency_code"),
            column("is_active", BOOLEAN, "status is_active", take=is_active),
            *columns(
                "description status pricebook_type sales_or_purchase_type pricing_scheme rounding_type", TEXT
            ),
            *columns("is_increase is_default", BOOLEAN),
            *columns("percentage", PERCENT),
            *columns("pricebook_rate", NUMBER),
            *columns("decimal_place", INTEGER),
            *columns("currency_id", ID),
            *columns("custom_fields", LIST),
            *columns("created_time last_modified_time", INSTANT),
        ),
        children=(
            Child(
                name="product_prices",
                link="pricelist_id",
                keys=("pricebook_items",),
                lines=_prices,
                unique_column="zoho_item_id",
                columns=(
                    line_no(),
                    column("product_id", ID, "item_id", parent=EntityType.PRODUCT, local=True),
                    column("zoho_item_id", ID, "item_id"),
                    column("zoho_pricebook_item_id", ID, "pricebook_item_id"),
                    column("item_name", TEXT, "name item_name"),
                    # A blank rate means that the list has no price for this item: NULL, never 0.
                    column("price", NUMBER, "pricebook_rate"),
                    column("discount_percentage", PERCENT, "pricebook_discount"),
                    column("currency", TEXT, "currency_code"),
                    *columns("pricing_scheme", TEXT),
                ),
            ),
            Child(
                name="product_price_brackets",
                link="pricelist_id",
                keys=("pricebook_items",),
                lines=_brackets,
                columns=(
                    line_no(),
                    column("zoho_item_id", ID, "item_id"),
                    column("zoho_pricebook_item_id", ID, "pricebook_item_id"),
                    # A blank end means an open bracket.
                    *columns("start_quantity end_quantity", NUMBER),
                    column("price", NUMBER, "pricebook_rate"),
                    column("discount_percentage", PERCENT, "pricebook_discount"),
                ),
            ),
        ),
    ),
)


def _known_adjustment_type(record: Data) -> None:
    """Raise Refusal unless the adjustment is one of quantity or value."""
    kind = record.get("adjustment_type")
    if kind is None or (isinstance(kind, str) and not kind.strip()):
        return
    if not isinstance(kind, str) or kind.strip().lower() not in ("quantity", "value"):
        raise Refusal("adjustment_type", f"must be quantity or value, not {shown(kind)}")


STOCK_ADJUSTMENT = Handler(
    entity=EntityType.STOCK_ADJUSTMENT,
    id_keys=("inventory_adjustment_id", "adjustment_id"),
    wrappers=("inventory_adjustment", "inventory_adjustments", "inventoryadjustment", "stock_adjustment"),
    check=_known_adjustment_type,
    # Lines are stored with the adjustment; stock comes only from the item. Adding quantities to the stock would
    # count a repeated delivery twice, and drafts and value adjustments must not change it.
    table=Table(
        name="stock_adjustments",
        key="zoho_adjustment_id",
        columns=(
            *columns("adjustment_type reason", TEXT),
            column("adjustment_date", DATE, "date"),
            *columns("status description reference_number", TEXT),
            *columns("reason_id", ID),
            *columns("total", NUMBER),
            column("location_id", ID, "location_id warehouse_id branch_id"),
            column("location_name", TEXT, "location_name warehouse_name branch_name"),
            *columns("is_inventory_valuation_pending", BOOLEAN),
            *columns("custom_fields", LIST),
            *columns("created_time last_modified_time", INSTANT),
        ),
        children=(
            Child(
                name="stock_adjustment_items",
                link="stock_adjustment_id",
                keys=("line_items",),
                lines=lines,
                columns=(
                    line_no(),
                    column("product_id", ID, "item_id", parent=EntityType.PRODUCT, local=True),
                    column("zoho_item_id", ID, "item_id"),
                    column("zoho_line_item_id", ID, "line_item_id"),
                    *columns("name sku description unit", TEXT),
                    *columns(
                        "quantity_adjusted value_adjusted current_value changed_value item_total asset_price",
                        NUMBER,
                    ),
                    *columns("is_combo_product", BOOLEAN),
                    *columns("adjustment_account_id", ID),
                    *columns("adjustment_account_name", TEXT),
                    column("location_id", ID, "location_id warehouse_id"),
                    column("location_name", TEXT, "location_name warehouse_name"),
                    *columns("serial_numbers batches storages", LIST),
                    column("custom_fields", LIST, "item_custom_fields custom_fields"),
                ),
            ),
        ),
    ),
)
