"""A webhook event: one change of one record at the source, waiting in the queue. Plain values only.

What is made for each event is a named tuple: as unchangeable as a frozen dataclass, and made in half the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID


class EntityType(StrEnum):
    """The eleven kinds of record, by the name a person uses."""

    PRODUCT = "Product"
    CUSTOMER = "Customer"
    INVOICE = "Invoice"
    SALES_ORDER = "SalesOrder"
    PAYMENT = "Payment"
    VENDOR = "Vendor"
    USER = "User"
    BILL = "Bill"
    CREDIT_NOTE = "CreditNote"
    STOCK_ADJUSTMENT = "StockAdjustment"
    PRICE_LIST = "PriceList"


QUEUE_NAMES: dict[EntityType, str] = {
    EntityType.PRODUCT: "product",
    EntityType.CUSTOMER: "customer",
    EntityType.INVOICE: "invoice",
    EntityType.SALES_ORDER: "order",
    EntityType.PAYMENT: "PAYMENT",
    EntityType.VENDOR: "VENDOR",
    EntityType.USER: "USER",
    EntityType.BILL: "bill",
    EntityType.CREDIT_NOTE: "credit_note",
    EntityType.STOCK_ADJUSTMENT: "stock_adjustment",
    EntityType.PRICE_LIST: "price_list",
}
"""How the queue's enum `tds_entity_type` spells each kind: in mixed case, as the ERP made it."""

ENTITY_TYPES: dict[str, EntityType] = {name: kind for kind, name in QUEUE_NAMES.items()}

DRAIN_ORDER: tuple[EntityType, ...] = (
    EntityType.USER,
    EntityType.CUSTOMER,
    EntityType.VENDOR,
    EntityType.PRODUCT,
    EntityType.PRICE_LIST,
    EntityType.SALES_ORDER,
    EntityType.INVOICE,
    EntityType.BILL,
    EntityType.PAYMENT,
    EntityType.CREDIT_NOTE,
    EntityType.STOCK_ADJUSTMENT,
)
"""Parents before children, so that nothing waits for a record that stands behind it."""


class Status(StrEnum):
    """The queue's own statuses (`tds_event_status`)."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    RETRY = "retry"
    DEAD_LETTER = "dead_letter"


SETTLED = frozenset({Status.COMPLETED, Status.FAILED, Status.DEAD_LETTER})
"""Statuses in which an event has come to rest."""


class Operation(StrEnum):
    """What happened to the record at the source (`tds_operation_type`)."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    UPSERT = "upsert"


class Event(NamedTuple):
    """One claimed event. *payload* is JSON text, so that numbers stay as exact as they were sent."""

    id: UUID
    entity: EntityType
    key: str
    """The record's id at the source, as text."""
    operation: Operation
    payload: str
    attempt: int
    """Attempts so far, this one included."""
    attempts_max: int
    created_at: datetime


def event_of(row: Sequence[Any]) -> Event:
    """An event from its columns, by position as the statements answer them: a look for each name takes longer."""
    id_, entity, key, operation, payload, attempt, attempts_max, created_at = row
    return Event(
        id=id_,
        entity=ENTITY_TYPES[entity],
        key=key,
        operation=Operation(operation),
        payload=payload,
        attempt=attempt,
        attempts_max=attempts_max,
        created_at=created_at,
    )


class Outcome(StrEnum):
    """What the core did, or would do, with an event."""

    APPLIED = "applied"
    SUPERSEDED = "superseded"
    """A newer version of the same record is already there; nothing was written."""
    WAITING = "waiting for a parent"
    REFUSED = "refused"


class Result(NamedTuple):
    """The outcome for one event, with the reason where it was not applied."""

    outcome: Outcome
    reason: str = ""
    """A sentence that names the field or the parent; empty when applied."""
    field: str | None = None
    """The payload's key that was refused, as a path (`line_items[2].rate`)."""
    target: str | None = None
    """The ERP row's own id, as text, where a row was written."""
    parents: tuple[str, ...] = ()
    """The ids at the source of all records that it waits for: it is woken when they have come."""


class ErrorClass(StrEnum):
    """Who can cure an error, decided by type and SQLSTATE, never by words."""

    TRANSIENT = "transient"
    PERMANENT = "permanent"
    MISSING_PARENT = "missing_parent"
