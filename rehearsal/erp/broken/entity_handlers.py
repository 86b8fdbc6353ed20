# mypy: ignore-errors
"""What becomes of a webhook, for the kinds that came in so far."""

import json
from collections.abc import Awaitable, Callable
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


HANDLERS: dict[str, Callable[[AsyncSession, dict[str, Any]], Awaitable[str]]] = {
    "product": product,
    "invoice": invoice,
}
