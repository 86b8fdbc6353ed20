"""Sales orders, invoices, bills and credit notes, each with its lines."""

from __future__ import annotations

from handlers.entities.base import Handler
from handlers.entities.kinds.common import (
    ADDRESSES,
    CUSTOMER,
    DEDUCTIONS,
    DISCOUNT,
    DOCUMENT,
    LINE,
    LINE_FIGURES,
    LINE_REST,
    SALESPERSON,
    SHIPPING,
    TERMS,
    amount_only,
    percentage_only,
)
from handlers.entities.parse import (
    BOOLEAN,
    DATE,
    ID,
    INSTANT,
    LIST,
    NUMBER,
    OBJECT,
    PERCENT,
    TEXT,
)
from handlers.entities.spec import Child, Table, column, columns, lines
from handlers.queue.event import EntityType

INVOICE = Handler(
    entity=EntityType.INVOICE,
    id_keys=("invoice_id",),
    wrappers=("invoice", "invoices"),
    table=Table(
        name="invoices",
        key="zoho_invoice_id",
        columns=(
            *columns("invoice_number", TEXT),
            *CUSTOMER,
            column("invoice_date", DATE, "date"),
            *columns("due_date", DATE),
            # As the source sends it; a change to "overdue" comes without an event.
            *columns("status current_sub_status", TEXT),
            *columns(
                "sub_total tax_total total balance payment_made credits_applied write_off_amount", NUMBER
            ),
            *columns("tax_amount_withheld payment_discount unused_retainer_payments", NUMBER),
            column("zoho_salesorder_id", ID, "salesorder_id"),
            *columns("salesorder_number", TEXT),
            *columns("email phone company_name notes invoice_url sales_channel", TEXT),
            *columns("is_emailed is_viewed_by_client has_attachment", BOOLEAN),
            *columns("recurring_invoice_id estimate_id", ID),
            *columns("unprocessed_payment_amount", NUMBER),
            *columns("contact_persons", LIST),
            *columns("payment_expected_date last_payment_date", DATE),
            *columns("updated_time", INSTANT),
            *TERMS,
            *SALESPERSON,
            *SHIPPING,
            *ADDRESSES,
            *DEDUCTIONS,
            *DOCUMENT,
        ),
        children=(
            Child(
                name="invoice_items",
                link="invoice_id",
                keys=("line_items",),
                lines=lines,
                columns=(
                    *LINE,
                    *LINE_FIGURES,
                    *LINE_REST,
                    column("zoho_salesorder_item_id", ID, "salesorder_item_id"),
                ),
            ),
        ),
    ),
)


SALES_ORDER = Handler(
    entity=EntityType.SALES_ORDER,
    id_keys=("salesorder_id",),
    wrappers=("salesorder", "sales_order", "salesorders", "sales_orders"),
    # The ERP's own payment columns (amount and method) are never written here.
    table=Table(
        name="sales_orders",
        key="zoho_salesorder_id",
        natural_key="order_number",
        columns=(
            column("order_number", TEXT, "salesorder_number"),
            column("customer_id", ID, parent=EntityType.CUSTOMER, local=True),
            column("zoho_customer_id", ID, "customer_id"),
            *columns("customer_name", TEXT),
            column("order_date", DATE, "date"),
            column("expected_delivery_date", DATE, "delivery_date"),
            column("actual_delivery_date", DATE, "shipment_date"),
            *columns(
                "status order_status invoiced_status paid_status shipped_status current_sub_status", TEXT
            ),
            column("subtotal", NUMBER, "sub_total"),
            column(
                "discount_percentage",
                PERCENT,
                "discount discount_percent",
                take=percentage_only("discount_percent"),
            ),
            column(
                "discount_amount", NUMBER, "discount discount_amount", take=amount_only("discount_amount")
            ),
            column("tax_amount", NUMBER, "tax_total"),
            column("total_amount", NUMBER, "total"),
            *columns("balance total_quantity sub_total_exclusive_of_discount", NUMBER),
            *columns("notes delivery_method sales_channel source email", TEXT),
            *columns("is_emailed is_backordered", BOOLEAN),
            *columns("total_invoiced_amount", NUMBER),
            *columns("estimate_id", ID),
            *TERMS,
            *SALESPERSON,
            *SHIPPING,
            *ADDRESSES,
            *columns("packages invoices purchaseorders salesreturns warehouses", LIST),
            *DOCUMENT,
        ),
        children=(
            Child(
                name="sales_items",
                link="sales_order_id",
                keys=("line_items",),
                lines=lines,
                columns=(
                    *LINE,
                    column("unit_price", NUMBER, "rate"),
                    column("discount_percentage", PERCENT, "discount", take=percentage_only("")),
                    column(
                        "discount_amount",
                        NUMBER,
                        "discount discount_amount",
                        take=amount_only("discount_amount"),
                    ),
                    # Never computed: only the source's own total.
                    column("line_total", NUMBER, "item_total"),
                    *columns("bcy_rate", NUMBER),
                    *DISCOUNT,
                    column("delivered_quantity", NUMBER, "quantity_delivered"),
                    *columns("quantity_invoiced quantity_packed quantity_shipped quantity_cancelled", NUMBER),
                    *columns("quantity_returned quantity_backordered quantity_dropshipped", NUMBER),
                    column("notes", TEXT, "description"),
                    *columns("is_invoiced", BOOLEAN),
                    column("zoho_variant_id", ID, "variant_id"),
                    *LINE_REST,
                ),
            ),
        ),
    ),
)


BILL = Handler(
    entity=EntityType.BILL,
    id_keys=("bill_id",),
    wrappers=("bill", "bills"),
    table=Table(
        name="bills",
        key="zoho_bill_id",
        columns=(
            *columns("bill_number", TEXT),
            column("zoho_vendor_id", ID, "vendor_id", parent=EntityType.VENDOR),
            *columns("vendor_name", TEXT),
            column("bill_date", DATE, "date"),
            *columns("due_date", DATE),
            *columns("status", TEXT),
            *columns("sub_total tax_total total balance payment_made vendor_credits_applied", NUMBER),
            *columns("unused_credits_payable_amount tax_amount_withheld", NUMBER),
            *columns("tds_percent", PERCENT),
            *columns("payment_expected_date", DATE),
            *columns("tds_amount unprocessed_payment_amount", NUMBER),
            *columns("tds_tax_id", ID),
            *columns("is_tds_applied", BOOLEAN),
            *columns("notes source_of_supply destination_of_supply", TEXT),
            *TERMS,
            *columns("billing_address", OBJECT),
            *columns("purchaseorder_ids purchaseorders payments vendor_credits", LIST),
            *DEDUCTIONS,
            *DOCUMENT,
        ),
        children=(
            Child(
                name="bill_items",
                link="bill_id",
                keys=("line_items",),
                lines=lines,
                columns=(
                    *LINE,
                    *LINE_FIGURES,
                    *LINE_REST,
                    *columns("item_total_inclusive_of_tax reverse_charge_tax_amount", NUMBER),
                    *columns("acquisition_vat_amount reverse_charge_vat_amount", NUMBER),
                    *columns("reverse_charge_tax_id", ID),
                    *columns("reverse_charge_tax_percentage", PERCENT),
                    *columns("is_billable", BOOLEAN),
                    column("zoho_customer_id", ID, "customer_id"),
                    *columns("customer_name itc_eligibility", TEXT),
                    column("zoho_purchaseorder_item_id", ID, "purchaseorder_item_id"),
                    column("zoho_receive_id", ID, "receive_id"),
                ),
            ),
        ),
    ),
)

CREDIT_NOTE = Handler(
    entity=EntityType.CREDIT_NOTE,
    id_keys=("creditnote_id",),
    wrappers=("creditnote", "creditnotes", "credit_note", "credit_notes"),
    table=Table(
        name="credit_notes",
        key="zoho_creditnote_id",
        columns=(
            *columns("creditnote_number", TEXT),
            column("zoho_customer_id", ID, "customer_id", parent=EntityType.CUSTOMER),
            *columns("customer_name email", TEXT),
            column("creditnote_date", DATE, "date"),
            *columns("status", TEXT),
            *columns("sub_total tax_total total balance total_credits_used total_refunded_amount", NUMBER),
            column("zoho_invoice_id", ID, "invoice_id"),
            *columns("invoice_number notes", TEXT),
            *columns("is_emailed", BOOLEAN),
            *SALESPERSON,
            *columns("shipping_charge", NUMBER),
            *ADDRESSES,
            *columns("invoices invoices_credited creditnote_refunds", LIST),
            *columns("updated_time", INSTANT),
            *DEDUCTIONS,
            *DOCUMENT,
        ),
        children=(
            Child(
                name="credit_note_items",
                link="credit_note_id",
                keys=("line_items",),
                lines=lines,
                columns=(
                    *LINE,
                    *LINE_FIGURES,
                    *LINE_REST,
                    *columns("code", TEXT),
                    *columns("is_returned_to_stock is_item_shipped", BOOLEAN),
                    column("zoho_invoice_id", ID, "invoice_id"),
                    column("zoho_invoice_item_id", ID, "invoice_item_id"),
                    column("zoho_salesreturn_item_id", ID, "salesreturn_item_id"),
                ),
            ),
        ),
    ),
)
