"""The records of a source for benchmarks: many, and each kept as what is its own beside what all share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from handlers.queue.event import EntityType
from rehearsal.webhooks import payloads
from rehearsal.zoho.organisation import Organisation

P, C, I = EntityType.PRODUCT, EntityType.CUSTOMER, EntityType.INVOICE  # noqa: E741
NOW = datetime(2025, 11, 5, 9, tzinfo=UTC)


def fill(organisation: Organisation, number: int) -> None:
    """Seven items of ten, two customers, and an invoice of one of them."""
    parts = {P: number * 7 // 10, C: number * 2 // 10, I: number // 10}
    item_like, customer_like = payloads.product(0, NOW, series=700), payloads.customer(0, NOW)
    for at in range(parts[P]):
        changed = payloads.stamp(NOW - timedelta(minutes=at))
        values = {"item_id": payloads.zoho_id(7_000_000, at), "name": f"item {at}", "sku": f"B-{at:07d}"}
        organisation.put(P, {**values, "rate": 10 + at % 900, "last_modified_time": changed}, like=item_like)
    for at in range(parts[C]):
        changed = payloads.stamp(NOW - timedelta(minutes=at))
        values = {"contact_id": payloads.zoho_id(8_000_000, at), "contact_name": f"customer {at}"}
        organisation.put(C, {**values, "last_modified_time": changed}, like=customer_like)
    items = [organisation.get(P, key) for key in organisation.keys(P)[:40]]
    customers = organisation.keys(C)
    like = payloads.invoice(0, NOW, customer_number=0, item=dict(items[0]))
    for at in range(parts[I]):
        made = payloads.invoice(
            at % 40, NOW - timedelta(minutes=at), customer_number=0, item=dict(items[at % 40])
        )
        made |= {
            "invoice_id": payloads.zoho_id(9_000_000, at),
            "invoice_number": f"INV-{at:07d}",
            "customer_id": customers[at % len(customers)],
        }
        organisation.put(
            I, {name: value for name, value in made.items() if like.get(name) != value}, like=like
        )
