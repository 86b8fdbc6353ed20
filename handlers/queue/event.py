"""A webhook event: one change of one record at the source, in the queue. Plain values only.

Types with an instance for each event are named tuples: immutable like a frozen dataclass, and twice as fast to create.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID


class EntityType(StrEnum):
    """The eleven entity types, by their readable names."""

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
"""The value of each type in the queue's enum `tds_entity_type`; the ERP mixes upper and lower case."""

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
"""Parents before children, so that no event waits for a record later in the same batch."""


SYNTHETIC_KEY = "tds-runbook-synthetic"
"""The record of synthetic events: they are no live traffic, and nobody counts them."""


class Status(StrEnum):
    """The queue's own statuses (`tds_event_status`)."""

    PENDING = "pending"
    """It waits for its first attempt."""
    PROCESSING = "processing"
    """A worker has it."""
    COMPLETED = "completed"
    """It was applied, or needed nothing."""
    FAILED = "failed"
    """An error of the ERP's former workers."""
    RETRY = "retry"
    """It waits for another attempt."""
    DEAD_LETTER = "dead_letter"
    """It waits for a person, a release or healing."""


SETTLED = frozenset({Status.COMPLETED, Status.FAILED, Status.DEAD_LETTER})
"""The statuses of a settled event."""


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
    """Number of attempts so far, including this one."""
    attempts_max: int
    created_at: datetime
    is_queued: bool = False
    """Whether *payload* is what the queue holds under *id*, so that the server can copy it from there."""


def event_of(row: Sequence[Any]) -> Event:
    """An event from the first columns of a row, by position: looking up columns by name is slower."""
    id_, entity, key, operation, payload, attempt, attempts_max, created_at, *_ = row
    return Event(
        id=id_,
        entity=ENTITY_TYPES[entity],
        key=key,
        operation=Operation(operation),
        payload=payload,
        attempt=attempt,
        attempts_max=attempts_max,
        created_at=created_at,
        is_queued=True,
    )


class Outcome(StrEnum):
    """The result of applying an event, or of a trial."""

    APPLIED = "applied"
    SUPERSEDED = "superseded"
    """A newer version of the same record is already stored; nothing was written."""
    WAITING = "waiting for a parent"
    """Or for a number that another record still has."""
    REFUSED = "refused"


class Result(NamedTuple):
    """The outcome for one event, with the reason where it was not applied."""

    outcome: Outcome
    reason: str = ""
    """A sentence with the field or the parent; empty when applied."""
    field: str | None = None
    """The path of the refused payload key (`line_items[2].rate`)."""
    target: str | None = None
    """The ERP row's own id, as text, where a row was written. A waiting event may have written a part of its row."""
    parents: tuple[str, ...] = ()
    """The source ids of all missing parents: the event is woken when they are applied."""
    number: str | None = None
    """The ERP's unique column whose value another record still has: any change of *parents* wakes the event."""


class ErrorClass(StrEnum):
    """Whether a retry can help, from the error's type and SQLSTATE, never from its text."""

    TRANSIENT = "transient"
    CONNECTION = "connection"
    """It says something about the connection, and nothing about the event."""
    PERMANENT = "permanent"
    MISSING_PARENT = "missing_parent"
