"""What customers pay: one row for a payment, and one for each invoice that it was applied to."""

from __future__ import annotations

from handlers.entities.base import Handler
from handlers.entities.document import Refusal
from handlers.entities.kinds.common import PLACE
from handlers.entities.parse import BOOLEAN, DATE, ID, INSTANT, LIST, NUMBER, OBJECT, TEXT
from handlers.entities.spec import Child, Data, Table, column, columns, line_no, lines
from handlers.queue.event import EntityType


def _only_invoice(record: Data) -> object:
    """The invoice of a payment for exactly one invoice, otherwise None."""
    applied = lines(record.get("invoices"), record)
    return applied[0][1].get("invoice_id") if len(applied) == 1 else None


def _invoice_path(record: Data) -> str:
    """The path of the invoice, or of the list if it has no lines."""
    try:
        return "invoices[0].invoice_id" if lines(record.get("invoices"), record) else "invoices"
    except ValueError:
        return "invoices"


def _not_to_a_vendor(record: Data) -> None:
    """Raise Refusal for a payment to a vendor: it may have the same id and envelope keys, but has a vendor id."""
    if not _blank(record.get("vendor_id")) and _blank(record.get("customer_id")):
        raise Refusal(
            "vendor_id",
            "is set, and customer_id is blank: this is a payment to a vendor, not from a customer",
        )


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


PAYMENT = Handler(
    entity=EntityType.PAYMENT,
    id_keys=("payment_id",),
    wrappers=("payment", "customerpayment", "customer_payment", "customerpayments", "payments"),
    check=_not_to_a_vendor,
    refused_wrappers={
        "vendorpayment": "is a payment to a vendor, another type of record with the same id key",
        "vendor_payment": "is a payment to a vendor, another type of record with the same id key",
        "vendorpayments": "are payments to vendors, another type of record with the same id key",
    },
    table=Table(
        name="invoice_payments",
        key="zoho_payment_id",
        natural_key="payment_number",
        columns=(
            *columns("payment_number payment_number_prefix payment_number_suffix", TEXT),
            column(
                "sales_invoice_id",
                ID,
                "invoices",
                take=_only_invoice,
                where=_invoice_path,
                parent=EntityType.INVOICE,
                local=True,
            ),
            column("zoho_customer_id", ID, "customer_id", parent=EntityType.CUSTOMER),
            *columns("customer_name email", TEXT),
            column("payment_date", DATE, "date"),
            *columns(
                "amount unused_amount bank_charges amount_refunded bcy_amount bcy_unused_amount", NUMBER
            ),
            *columns("bcy_refunded_amount", NUMBER),
            *columns("tax_amount_withheld discount_amount exchange_rate", NUMBER),
            column("payment_method", TEXT, "payment_mode"),
            column("bank_account", TEXT, "bank_name"),
            *columns("reference_number check_number notes description status payment_status", TEXT),
            # A list row has only the numbers of its invoices.
            *columns("invoice_numbers payment_type product_description", TEXT),
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
