"""What is in the queue when a rehearsal begins: two days of dead letters, the day before, and older history.

The bug of the broken revision meets new items and invoices only. What the ERP knows it has applied all the time, so
that the last 24 hours are mostly good: otherwise no release could be worse than what runs.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Literal

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from rehearsal.running import to_its_end
from rehearsal.webhooks import known, payloads
from rehearsal.webhooks.payloads import KEYS, WRAPPERS, Record

Variant = Literal["good", "empty", "failed-only", "hopeless"]

DAY_EVENTS = 1200
"""Webhooks of the last 24 hours. The 29 dead letters among them are less than 5 % of all, and of the items."""
DAY_CYCLE = (
    *(
        "product",
        "customer",
        "product",
        "invoice",
        "product",
        "order",
        "product",
        "PAYMENT",
        "product",
        "invoice",
    ),
)
"""The mix of kinds. Half are items, as in the backlog."""
SLOWEST_SECONDS = 25.0
_DEAD_PRODUCTS = 52
_DEAD_INVOICES = 6
_FIRST_DEAD_INVOICE = 900
_HOPELESS = (10, 30, _DEAD_PRODUCTS + 2, _DEAD_PRODUCTS + 4)
"""Positions among the dead letters: two items and two invoices, none the oldest of its type."""
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
    seconds: float = 2
    """From the first attempt to the completion."""
    error: str | None = None
    """Of a dead letter; without it, the error of the broken revision."""
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
            "completed_at": self.created_at + timedelta(seconds=1 + self.seconds) if done else None,
            "target": self.target,
            "error": (self.error or _ERROR) if dead else None,
            "error_code": (_ERROR_CODE if self.error is None else "refused") if dead else None,
        }


async def seed(
    engine: AsyncEngine,
    variant: Variant = "good",
    *,
    now: datetime | None = None,
    slowest_seconds: float = SLOWEST_SECONDS,
) -> None:
    """Fill a fresh database: rows the old code wrote, their history, and the backlog of *variant*.

    *slowest_seconds* is how long the slowest webhooks of the day before took. A cancellation waits until it is done:
    asyncpg 0.32 swallows one that comes while it sends many rows, and waits for an answer for ever.
    """
    await to_its_end(_seed(engine, variant, now or datetime.now(UTC), slowest_seconds))


async def _seed(engine: AsyncEngine, variant: Variant, now: datetime, slowest_seconds: float) -> None:
    async with engine.begin() as tx:
        await _rows(tx, now)
        await insert(tx, _history(now))
        await insert(tx, _day_before(now, slowest_seconds))
        match variant:
            case "good":
                await insert(tx, dead_letters(now))
            case "hopeless":
                await insert(tx, hopeless(dead_letters(now)))
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
        record = payloads.product(number, at, reorder_level=known.reorder_level(number))
        seeds.append(_dead("product", number, record, at=at, status=status))
    for number in range(_DEAD_INVOICES):
        at = began + timedelta(hours=5 + 7 * number)
        item = known.product(number, at) if number < 2 else payloads.product(number, at)
        record = payloads.invoice(_FIRST_DEAD_INVOICE + number, at, customer_number=number, item=item)
        seeds.append(_dead("invoice", number, record, at=at, status=status))
    return seeds


def hopeless(letters: Sequence[Seed]) -> list[Seed]:
    """The same, four of them with a value that no revision can read; they died of it before, and will again."""
    return [_unreadable(letter) if number in _HOPELESS else letter for number, letter in enumerate(letters)]


def _unreadable(letter: Seed) -> Seed:
    if letter.entity == "invoice":
        name, value, why = "date", "2026-02-31", 'is not a valid date: "2026-02-31"'
    else:
        name, value = "last_modified_time", "31.02.2026 25:00"
        why = f'must be a time like 2025-11-04T15:20:11+0300, not "{value}"'
    return replace(letter, record=letter.record | {name: value}, error=f"{name}: {why}")


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

    add("USER", known.USERS, payloads.user)
    add("customer", known.CUSTOMERS, payloads.customer, rounds=2)
    add("VENDOR", known.VENDORS, lambda number, at: payloads.customer(number, at, kind="vendor"))
    add("product", known.PRODUCTS, known.product, rounds=5)
    add("invoice", known.INVOICES, known.invoice)
    add("order", known.ORDERS, lambda number, at: known.record("order", number, at))
    add("PAYMENT", known.PAYMENTS, lambda number, at: known.record("PAYMENT", number, at))
    return seeds


def _day_before(now: datetime, slowest_seconds: float) -> list[Seed]:
    """The last 24 hours under the broken revision: known records, all applied.

    Their time to completion is spread, as on a real day: what is slow is measured by it.
    """
    began = now - timedelta(hours=24)
    return [
        Seed(
            entity=DAY_CYCLE[number % len(DAY_CYCLE)],
            record=known.record(
                DAY_CYCLE[number % len(DAY_CYCLE)], number, began + number * (now - began) / DAY_EVENTS
            ),
            created_at=began + number * (now - began) / DAY_EVENTS,
            status="completed",
            attempts=1,
            target="1",
            seconds=slowest_seconds * (1 + number * 7 % 25) / 25,
            unique=f"day {number}",
        )
        for number in range(DAY_EVENTS)
    ]


async def _rows(tx: AsyncConnection, now: datetime) -> None:
    """The rows of that history as the old code wrote them: its own columns, and none of the core's."""
    at = now - timedelta(days=20)
    rows = {
        "product": [known.product(number, at) for number in range(known.PRODUCTS)],
        "customer": [payloads.customer(number, at) for number in range(known.CUSTOMERS)],
        "vendor": [payloads.customer(number, at, kind="vendor") for number in range(known.VENDORS)],
        "zoho_user": [payloads.user(number, at) for number in range(known.USERS)],
        "invoice": [known.invoice(number, at) for number in range(known.INVOICES)],
        "order": [known.record("order", number, at) for number in range(known.ORDERS)],
        "payment": [known.record("PAYMENT", number, at) for number in range(known.PAYMENTS)],
    }
    for name, records in rows.items():
        await tx.execute(query(name), [_numbers(query(name), record) for record in records])


def _numbers(statement: TextClause, record: Record) -> Record:
    """The values that *statement* binds, with money as exact as it was written."""
    wanted = {name: record[name] for name in statement.compile().params}
    return {name: Decimal(str(v)) if isinstance(v, (int, float)) else v for name, v in wanted.items()}
