"""What is in the queue when a rehearsal begins: two days of dead letters, and what came before."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Literal

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from rehearsal.webhooks import payloads
from rehearsal.webhooks.payloads import KEYS, WRAPPERS, Record

Variant = Literal["good", "empty", "failed-only"]

CUSTOMERS = 20
PRODUCTS = 30
VENDORS = 8
USERS = 4
INVOICES = 60
KNOWN_PRODUCTS = 113
"""Series of the items that are in the ERP already; the dead letters' items are of another."""

_DEAD_PRODUCTS = 52
_DEAD_INVOICES = 6
_FIRST_DEAD_INVOICE = 900
_NAMESPACE = uuid.UUID("5d5f3c0e-8f5c-4b0e-9d57-7f6d3b6f0a11")
_ERROR_CODE = "xd2s"
_ERROR = (
    "greenlet_spawn has not been called; can't call await_only() here. "
    "Was IO attempted in an unexpected place? (Background on this error at: https://sqlalche.me/e/20/xd2s)"
)


@cache
def query(name: str) -> TextClause:
    """The query of `backlog.sql` called *name*."""
    source = files(__package__).joinpath("backlog.sql").read_text(encoding="utf-8")
    _, _, found = source.partition(f"-- {name} --\n")
    return text(found.partition(";\n")[0])


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One event to put into the queue."""

    entity: str
    record: Record
    created_at: datetime
    status: str = "pending"
    attempts: int = 0
    target: str | None = None
    unique: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def id(self) -> uuid.UUID:
        """The event's id in the queue."""
        return uuid.uuid5(_NAMESPACE, f"queue {self.unique}")

    @property
    def key(self) -> str:
        return str(self.record[KEYS[self.entity]])

    def values(self) -> dict[str, object]:
        """The parameters of both inserts: the wrapped body as it came, the bare record as it waits."""
        payload = json.dumps(self.record, ensure_ascii=False)
        done = self.status == "completed"
        dead = self.status in ("dead_letter", "failed")
        return {
            "id": self.id,
            "inbox": uuid.uuid5(_NAMESPACE, f"inbox {self.unique}"),
            "entity": self.entity,
            "key": self.key,
            "body": json.dumps({WRAPPERS[self.entity]: self.record}, ensure_ascii=False),
            "payload": payload,
            "idempotency_key": f"zoho:{self.entity}:{self.key}:update:{self.unique}",
            "content_hash": hashlib.sha256(payload.encode()).hexdigest(),
            "status": self.status,
            "attempts": self.attempts,
            "created_at": self.created_at,
            "started_at": self.created_at + timedelta(seconds=1) if done else None,
            "completed_at": self.created_at + timedelta(seconds=3) if done else None,
            "target": self.target,
            "error": _ERROR if dead else None,
            "error_code": _ERROR_CODE if dead else None,
        }


async def seed(engine: AsyncEngine, variant: Variant = "good", *, now: datetime | None = None) -> None:
    """Fill a fresh database: rows the old code wrote, their history, and the backlog of *variant*."""
    now = now or datetime.now(UTC)
    async with engine.begin() as tx:
        await _rows(tx, now)
        await insert(tx, _history(now))
        match variant:
            case "good":
                await insert(tx, dead_letters(now))
            case "failed-only":
                await insert(tx, dead_letters(now, status="failed"))
            case "empty":
                pass


async def insert(tx: AsyncConnection, seeds: Sequence[Seed]) -> None:
    """Put events into inbox and queue as the receiver does, in one transaction."""
    values = [one.values() for one in seeds]
    if values:
        await tx.execute(query("inbox"), values)
        await tx.execute(query("queue"), values)


def dead_letters(now: datetime, *, status: str = "dead_letter") -> list[Seed]:
    """52 items and 6 invoices of the last two days, each with the error that the broken revision leaves.

    Every fifth item has a clean reorder level, the oldest among them: a careless revision passes the canary.
    Two of the invoices sell items that the ERP knows, the others items that are dead letters themselves.
    """
    # The newest came a short while ago: a queue that is silent for long would be a warning of every plan.
    began = now - timedelta(hours=46)
    seeds = []
    for number in range(_DEAD_PRODUCTS):
        at = began + timedelta(minutes=52 * number)
        record = payloads.product(number, at, reorder_level=_reorder_level(number))
        seeds.append(_dead("product", number, record, at=at, status=status))
    for number in range(_DEAD_INVOICES):
        at = began + timedelta(hours=5 + 7 * number)
        item = known_product(number, at) if number < 2 else payloads.product(number, at)
        record = payloads.invoice(_FIRST_DEAD_INVOICE + number, at, customer_number=number, item=item)
        seeds.append(_dead("invoice", number, record, at=at, status=status))
    return seeds


def known_product(number: int, at: datetime) -> Record:
    """An item that is in the ERP already."""
    return payloads.product(number, at, series=KNOWN_PRODUCTS, reorder_level=_reorder_level(number))


def _reorder_level(number: int) -> object:
    """A whole number, nothing, or a decimal, in the proportions of a real catalogue."""
    return 5 if number % 5 == 0 else ("2.50" if number % 5 == 3 else "")


def _dead(entity: str, number: int, record: Record, *, at: datetime, status: str) -> Seed:
    return Seed(
        entity=entity,
        record=record,
        created_at=at + timedelta(seconds=2),
        status=status,
        attempts=1 + number % 3,
        unique=f"dead {entity} {number}",
    )


def _history(now: datetime) -> list[Seed]:
    """Events that were applied before the bug came: everything the ERP knows, and later changes of items."""
    began = now - timedelta(days=20)
    seeds: list[Seed] = []

    def add(entity: str, count: int, make: Callable[[int, datetime], Record], rounds: int = 1) -> None:
        for turn in range(rounds):
            for number in range(count):
                at = began + timedelta(days=2 * turn, minutes=3 * number, seconds=20 * len(seeds))
                seeds.append(
                    Seed(
                        entity=entity,
                        record=make(number, at),
                        created_at=at + timedelta(seconds=2),
                        status="completed",
                        target=str(number + 1),
                        unique=f"history {entity} {turn} {number}",
                    )
                )

    add("USER", USERS, payloads.user)
    add("customer", CUSTOMERS, payloads.customer, rounds=2)
    add("VENDOR", VENDORS, lambda number, at: payloads.customer(number, at, kind="vendor"))
    add("product", PRODUCTS, known_product, rounds=5)
    add("invoice", INVOICES, _known_invoice)
    return seeds


def _known_invoice(number: int, at: datetime) -> Record:
    item = known_product(number % PRODUCTS, at)
    return payloads.invoice(number, at, customer_number=number % CUSTOMERS, item=item)


async def _rows(tx: AsyncConnection, now: datetime) -> None:
    """The rows of that history as the old code wrote them: its own columns, and none of the core's."""
    at = now - timedelta(days=20)
    rows = {
        "product": [known_product(number, at) for number in range(PRODUCTS)],
        "customer": [payloads.customer(number, at) for number in range(CUSTOMERS)],
        "vendor": [payloads.customer(number, at, kind="vendor") for number in range(VENDORS)],
        "zoho_user": [payloads.user(number, at) for number in range(USERS)],
        "invoice": [_known_invoice(number, at) for number in range(INVOICES)],
    }
    for name, records in rows.items():
        await tx.execute(query(name), [_numbers(query(name), record) for record in records])


def _numbers(statement: TextClause, record: Record) -> Record:
    """The values that *statement* binds, with money as exact as it was written."""
    wanted = {name: record[name] for name in statement.compile().params}
    return {name: Decimal(str(v)) if isinstance(v, (int, float)) else v for name, v in wanted.items()}
