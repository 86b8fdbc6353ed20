"""Real bodies of Zoho's webhooks, as the receiver gets them, and copies of them about other records."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta, timezone
from functools import cache
from importlib.resources import files
from typing import Any

Record = dict[str, Any]

BAGHDAD = timezone(timedelta(hours=3))
WRAPPERS = {
    "product": "item",
    "customer": "contact",
    "VENDOR": "contact",
    "USER": "user",
    "invoice": "invoice",
    "order": "salesorder",
    "PAYMENT": "payment",
}
"""The key under which a webhook carries its record, by the queue's name for the kind."""

KEYS = {
    "product": "item_id",
    "customer": "contact_id",
    "VENDOR": "contact_id",
    "USER": "user_id",
    "invoice": "invoice_id",
    "order": "salesorder_id",
    "PAYMENT": "payment_id",
}
_ORGANISATION = 2_646_610_000_000_000_000


def zoho_id(series: int, number: int) -> str:
    """A record's id as the source makes them: long, and text."""
    return str(_ORGANISATION + series * 1000 + number)


def stamp(at: datetime) -> str:
    """A time as the source writes it: whole seconds, the organisation's zone, no colon in the offset."""
    return at.astimezone(BAGHDAD).strftime("%Y-%m-%dT%H:%M:%S%z")


def product(number: int, at: datetime, *, series: int = 114, reorder_level: object = "") -> Record:
    """An item. Most items have no reorder level, as in the recorded bodies."""
    templates = [_record("product"), _record("product_variant"), *_records("product_list", "items")]
    record = copy.deepcopy(templates[number % len(templates)])
    name = f"{record['name'][:40].strip()} no. {series}-{number}"
    return record | {
        "item_id": zoho_id(series, number),
        "name": name,
        "item_name": name,
        "sku": f"TSH-{series}-{number:04d}",
        "rate": 1000 + 12.5 * number,
        "stock_on_hand": float(3 + number % 40),
        "reorder_level": reorder_level,
        "created_time": stamp(at - timedelta(days=200)),
        "last_modified_time": stamp(at),
    }


def customer(number: int, at: datetime, *, kind: str = "customer") -> Record:
    """A contact of *kind* customer or vendor."""
    vendor = kind == "vendor"
    record = copy.deepcopy(_record("vendor" if vendor else "customer"))
    return record | {
        "contact_id": contact_id(number, kind=kind),
        "contact_name": f"Sample {'Import' if vendor else 'Trading'} Co {number}",
        "email": f"contact{number}@example.com",
        "created_time": stamp(at - timedelta(days=300)),
        "last_modified_time": stamp(at),
    }


def contact_id(number: int, *, kind: str = "customer") -> str:
    """The id that `customer` gives to contact *number*."""
    return zoho_id(301 if kind == "vendor" else 201, number)


def user(number: int, at: datetime) -> Record:
    """A user; users carry no change stamp."""
    return copy.deepcopy(_record("user")) | {
        "user_id": zoho_id(801, number),
        "name": f"Sample Clerk {number}",
        "email": f"clerk{number}@example.com",
        "created_time": stamp(at - timedelta(days=300)),
    }


def invoice(number: int, at: datetime, *, customer_number: int, item: Record) -> Record:
    """An invoice with one line over twelve pieces of *item*."""
    record = copy.deepcopy(_record("invoice"))
    _put_line(record["line_items"], item, line_id=zoho_id(411, number), quantity=12)
    total = record["line_items"][0]["item_total"]
    return record | {
        "invoice_id": zoho_id(401, number),
        "invoice_number": f"INV-{number:06d}",
        "customer_id": contact_id(customer_number),
        "customer_name": f"Sample Trading Co {customer_number}",
        "date": at.date().isoformat(),
        "due_date": (at + timedelta(days=30)).date().isoformat(),
        "sub_total": total,
        "total": total,
        "balance": total,
        "payment_made": 0,
        "status": "sent",
        "created_time": stamp(at),
        "last_modified_time": stamp(at),
    }


def order(number: int, at: datetime, *, customer_number: int, items: list[Record]) -> Record:
    """A sales order with a line for each of *items*."""
    record = copy.deepcopy(_record("order"))
    record["line_items"] = record["line_items"][: len(items)]
    for position, item in enumerate(items):
        line = record["line_items"][position : position + 1]
        _put_line(line, item, line_id=zoho_id(511 + position, number), quantity=2)
    total = sum(line["item_total"] for line in record["line_items"])
    return record | {
        "salesorder_id": zoho_id(501, number),
        "salesorder_number": f"SO-{number:05d}",
        "customer_id": contact_id(customer_number),
        "customer_name": f"Sample Trading Co {customer_number}",
        "date": at.date().isoformat(),
        "sub_total": total,
        "total": total,
        "balance": total,
        "created_time": stamp(at),
        "last_modified_time": stamp(at),
    }


def payment(number: int, at: datetime, *, customer_number: int, invoice_numbers: list[int]) -> Record:
    """A payment spread over some invoices."""
    record = copy.deepcopy(_record("payment"))
    shares = record["invoices"][: len(invoice_numbers)]
    for share, invoice_number in zip(shares, invoice_numbers, strict=True):
        share["invoice_id"] = zoho_id(401, invoice_number)
        share["invoice_number"] = f"INV-{invoice_number:06d}"
        share["invoice_payment_id"] = zoho_id(611 + shares.index(share), number)
        share["amount_applied"] = 5000
    return record | {
        "payment_id": zoho_id(601, number),
        "payment_number": str(number),
        "customer_id": contact_id(customer_number),
        "customer_name": f"Sample Trading Co {customer_number}",
        "date": at.date().isoformat(),
        "invoices": shares,
        "amount": 5000 * len(shares),
        "created_time": stamp(at),
        "updated_time": stamp(at),
        "last_modified_time": stamp(at),
    }


def _put_line(lines: list[Record], item: Record, *, line_id: str, quantity: int) -> None:
    lines[0] |= {
        "line_item_id": line_id,
        "item_id": item["item_id"],
        "name": item["name"],
        "sku": item["sku"],
        "quantity": quantity,
        "rate": item["rate"],
        "item_total": quantity * item["rate"],
    }


def _record(name: str) -> Record:
    (record,) = [value for value in _body(name).values() if isinstance(value, dict)]
    return record


def _records(name: str, key: str) -> list[Record]:
    return list(_body(name)[key])


@cache
def _body(name: str) -> Record:
    text = files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    body: Record = json.loads(text)
    return body
