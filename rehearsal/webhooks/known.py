"""The records that the ERP knows when a rehearsal begins. Webhooks about them come again and again."""

from __future__ import annotations

from datetime import datetime

from rehearsal.webhooks import payloads
from rehearsal.webhooks.payloads import Record

CUSTOMERS = 20
PRODUCTS = 30
VENDORS = 8
USERS = 4
INVOICES = 60
ORDERS = 40
PAYMENTS = 40
KNOWN_PRODUCTS = 113
"""Series of the items that are in the ERP already; the dead letters' items are of another."""


def record(kind: str, number: int, at: datetime) -> Record:
    """A record that is in the ERP already, as it is *at* some time. *number* goes round the records of its kind."""
    match kind:
        case "product":
            return product(number % PRODUCTS, at)
        case "customer":
            return payloads.customer(number % CUSTOMERS, at)
        case "invoice":
            return invoice(number % INVOICES, at)
        case "order":
            number %= ORDERS
            item = product(number % PRODUCTS, at)
            return payloads.order(number, at, customer_number=number % CUSTOMERS, items=[item])
        case "PAYMENT":
            number %= PAYMENTS
            return payloads.payment(number, at, customer_number=number % CUSTOMERS, invoice_numbers=[number])
    raise ValueError(f"there are no known records of kind {kind}")


def invoice(number: int, at: datetime) -> Record:
    """An invoice that is in the ERP already."""
    item = product(number % PRODUCTS, at)
    return payloads.invoice(number, at, customer_number=number % CUSTOMERS, item=item)


def product(number: int, at: datetime) -> Record:
    """An item that is in the ERP already."""
    return payloads.product(number, at, series=KNOWN_PRODUCTS, reorder_level=reorder_level(number))


def reorder_level(number: int) -> object:
    """A whole number, nothing, or a decimal, in the proportions of a real catalogue."""
    return 5 if number % 5 == 0 else ("2.50" if number % 5 == 3 else "")
