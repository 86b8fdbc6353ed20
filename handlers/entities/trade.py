"""What is traded and owed: sales orders, invoices, payments, bills and credit notes, each with its lines."""

from __future__ import annotations

from handlers.entities.base import Handler
from handlers.entities.common import (
    ADDRESSES,
    CUSTOMER,
    DISCOUNT,
    DOCUMENT,
    LINE,
    LINE_FIGURES,
    LINE_REST,
    PLACE,
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
from handlers.entities.spec import Child, Data, Table, column, columns, line_no, lines
from handlers.webhooks.event import EntityType

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
            # As the source says it; "overdue" comes by the passing of time, without an event.
            *columns("status current_sub_status", TEXT),
            *columns(
                "sub_total tax_total total balance payment_made credits_applied write_off_amount", NUMBER
            ),
            *columns("tax_amount_withheld payment_discount unused_retainer_payments", NUMBER),
            column("zoho_salesorder_id", ID, "salesorder_id"),
            *columns("salesorder_number", TEXT),
            *columns("email company_name notes invoice_url sales_channel", TEXT),
            *columns("is_emailed is_viewed_by_client", BOOLEAN),
            *columns("payment_expected_date last_payment_date", DATE),
            *TERMS,
            *SALESPERSON,
            *SHIPPING,
            *ADDRESSES,
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
    wrappers=("salesorder", "sales_order", "salesorders"),
    # What was paid, and how, is the ERP's own knowledge: those columns are never written here.
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
            *columns("balance total_quantity", NUMBER),
            *columns("notes delivery_method sales_channel source", TEXT),
            *columns("is_emailed", BOOLEAN),
            *TERMS,
            *SALESPERSON,
            *SHIPPING,
            *ADDRESSES,
            *columns("packages", LIST),
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
                    # What the source did not sum up is not summed up here.
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


def _only_invoice(record: Data) -> object:
    """The invoice of a payment over one invoice; a payment over several has none of its own."""
    applied = lines(record.get("invoices"), record)
    return applied[0][1].get("invoice_id") if len(applied) == 1 else None


PAYMENT = Handler(
    entity=EntityType.PAYMENT,
    id_keys=("payment_id",),
    wrappers=("payment", "customerpayment", "customer_payment", "customerpayments", "payments"),
    refused_wrappers={
        "vendorpayment": "is a payment to a vendor: another kind of record, only its id is called the same",
        "vendorpayments": "are payments to vendors: another kind of record, only their id is called the same",
    },
    table=Table(
        name="invoice_payments",
        key="zoho_payment_id",
        natural_key="payment_number",
        columns=(
            *columns("payment_number payment_number_prefix payment_number_suffix", TEXT),
            column(
                "sales_invoice_id", ID, "invoices", take=_only_invoice, parent=EntityType.INVOICE, local=True
            ),
            column("zoho_customer_id", ID, "customer_id", parent=EntityType.CUSTOMER),
            *columns("customer_name email", TEXT),
            column("payment_date", DATE, "date"),
            *columns("amount unused_amount bank_charges amount_refunded", NUMBER),
            *columns("tax_amount_withheld discount_amount exchange_rate", NUMBER),
            column("payment_method", TEXT, "payment_mode"),
            column("bank_account", TEXT, "bank_name"),
            *columns("reference_number check_number notes description status payment_status", TEXT),
            *columns("check_date", DATE),
            *columns("account_id", ID),
            *columns("account_name account_type", TEXT),
            # `currency_id` is the ERP's own number here.
            column("zoho_currency_id", ID, "currency_id"),
            *columns("currency_code currency_symbol", TEXT),
            *PLACE,
            *columns("is_advance_payment is_paid_via_check", BOOLEAN),
            *columns("online_transaction_id payment_gateway card_type", TEXT),
            *columns("last_four_digits settlement_status", TEXT),
            *columns("check_details", OBJECT),
            *columns("payment_refunds custom_fields", LIST),
            *columns("created_time updated_time last_modified_time", INSTANT),
        ),
        children=(
            # One row for each invoice that the payment was applied to; the payment itself has one row.
            Child(
                name="payment_applications",
                link="payment_id",
                keys=("invoices",),
                lines=lines,
                columns=(
                    line_no(),
                    column("invoice_id", ID, parent=EntityType.INVOICE, local=True),
                    column("zoho_invoice_id", ID, "invoice_id"),
                    column("zoho_invoice_payment_id", ID, "invoice_payment_id"),
                    *columns("invoice_number", TEXT),
                    *columns("amount_applied tax_amount_withheld discount_amount", NUMBER),
                    column("invoice_total", NUMBER, "total invoice_amount"),
                    column("invoice_balance", NUMBER, "balance balance_amount"),
                    column("invoice_date", DATE, "date"),
                    *columns("due_date apply_date", DATE),
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
            *columns("tds_amount", NUMBER),
            *columns("notes", TEXT),
            *TERMS,
            *columns("billing_address", OBJECT),
            *columns("purchaseorder_ids purchaseorders payments vendor_credits", LIST),
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
                    *columns("reverse_charge_tax_id", ID),
                    *columns("reverse_charge_tax_percentage", PERCENT),
                    *columns("is_billable", BOOLEAN),
                    column("zoho_customer_id", ID, "customer_id"),
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
    wrappers=("creditnote", "creditnotes", "credit_note"),
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
