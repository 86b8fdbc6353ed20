# mypy: ignore-errors
"""What becomes of a webhook, for the kinds that came in so far.

Orders and payments are found by the source's id, whose columns `runbook db adopt` has added. Version stamps are not
written, and no parent is waited for: an order of an unknown customer has none.
"""

import json
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

PRODUCT = text(
    "INSERT INTO products (zoho_item_id, name, sku, price, updated_at)"
    " VALUES (:id, :name, :sku, :price, now()) ON CONFLICT (zoho_item_id) DO UPDATE"
    " SET name = excluded.name, sku = excluded.sku, price = excluded.price, updated_at = now() RETURNING id"
)
INVOICE = text(
    "INSERT INTO invoices (zoho_invoice_id, invoice_number, customer_id, total, zoho_data, updated_at)"
    " VALUES (:id, :number, :customer, :total, :data, now()) ON CONFLICT (zoho_invoice_id) DO UPDATE SET"
    " total = excluded.total, zoho_data = excluded.zoho_data, updated_at = now() RETURNING id"
)

CUSTOMER = text(
    "INSERT INTO customers (zoho_contact_id, contact_name, email, updated_at)"
    " VALUES (:id, :name, :email, now()) ON CONFLICT (zoho_contact_id) DO UPDATE"
    " SET contact_name = excluded.contact_name, email = excluded.email, updated_at = now() RETURNING id"
)
ORDER = text(
    "INSERT INTO sales_orders (zoho_salesorder_id, order_number, customer_id, order_date, total_amount, updated_at)"
    " VALUES (:id, :number, (SELECT id FROM customers WHERE zoho_contact_id = :customer), CAST(:date AS date),"
    " :total, now()) ON CONFLICT (order_number) DO UPDATE"
    " SET total_amount = excluded.total_amount, updated_at = now() RETURNING id"
)
PAYMENT = text(
    "INSERT INTO invoice_payments (zoho_payment_id, payment_number, payment_date, amount, updated_at)"
    " VALUES (:id, :number, CAST(:date AS date), :amount, now()) ON CONFLICT (payment_number) DO UPDATE"
    " SET amount = excluded.amount, updated_at = now() RETURNING id"
)
KNOWN = {
    "product": text("SELECT id FROM products WHERE zoho_item_id = :id"),
    "invoice": text("SELECT id FROM invoices WHERE zoho_invoice_id = :id"),
}
"""Where a record of the kind is, of the kinds that go through the new queue service when they are new."""


async def product(session: AsyncSession, payload: dict[str, Any]) -> str:
    values = {
        "id": payload["item_id"],
        "name": payload.get("name", ""),
        "sku": payload.get("sku", ""),
        "price": float(payload.get("rate", 0)),
    }
    return str(await session.scalar(PRODUCT, values))


async def invoice(session: AsyncSession, payload: dict[str, Any]) -> str:
    values = {
        "id": payload["invoice_id"],
        "number": payload.get("invoice_number", ""),
        "customer": payload.get("customer_id", ""),
        "total": float(payload.get("total", 0)),
        "data": json.dumps(payload),
    }
    return str(await session.scalar(INVOICE, values))


async def customer(session: AsyncSession, payload: dict[str, Any]) -> str:
    values = {
        "id": payload["contact_id"],
        "name": payload.get("contact_name", ""),
        "email": payload.get("email", ""),
    }
    return str(await session.scalar(CUSTOMER, values))


async def order(session: AsyncSession, payload: dict[str, Any]) -> str:
    values = {
        "id": payload["salesorder_id"],
        "number": payload["salesorder_number"],
        "customer": payload.get("customer_id", ""),
        "date": date.fromisoformat(payload["date"]),
        "total": float(payload.get("total", 0)),
    }
    return str(await session.scalar(ORDER, values))


async def payment(session: AsyncSession, payload: dict[str, Any]) -> str:
    values = {
        "id": payload["payment_id"],
        "number": payload["payment_number"],
        "date": date.fromisoformat(payload["date"]),
        "amount": float(payload.get("amount", 0)),
    }
    return str(await session.scalar(PAYMENT, values))


async def is_new(session: AsyncSession, kind: str, key: str) -> bool:
    """Whether the record has to be made; only of items and invoices this is asked."""
    return kind in KNOWN and await session.scalar(KNOWN[kind], {"id": key}) is None


HANDLERS: dict[str, Callable[[AsyncSession, dict[str, Any]], Awaitable[str]]] = {
    "product": product,
    "customer": customer,
    "invoice": invoice,
    "order": order,
    "PAYMENT": payment,
}
