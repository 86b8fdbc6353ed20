"""Live webhooks during a rehearsal: what customers and clerks do while a release is under way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.sqlstate import DRIVER_ERRORS
from rehearsal.webhooks import backlog, payloads
from rehearsal.webhooks.backlog import Seed

_CYCLE = (
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
)
"""The mix of kinds. Half are items, as in the backlog."""


async def traffic(
    engine: AsyncEngine, stop: asyncio.Event, per_second: float, received: list[UUID] | None = None
) -> int:
    """Insert webhooks as the receiver would until *stop* is set; returns how many. *received* gets their ids.

    A database that is down for a moment loses what was sent meanwhile, as with a receiver in front of it.
    """
    chance = random.Random(20251114)
    sent = 0
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in itertools.count():
        pause = began + number / per_second - loop.time()
        if pause > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
        if stop.is_set():
            break
        event = webhook(number, chance)
        try:
            await send(engine, event)
        except DRIVER_ERRORS:
            continue
        sent += 1
        if received is not None:
            received.append(event.id)
    return sent


async def send(engine: AsyncEngine, event: Seed) -> None:
    """Receive one webhook: inbox, queue and the call to the workers, in one transaction."""
    async with engine.begin() as tx:
        await backlog.insert(tx, [event])
        await tx.execute(backlog.query("call_workers"))


def webhook(number: int, chance: random.Random) -> Seed:
    """The *number*th webhook: a change of something the ERP knows, or something new with known parents."""
    now = datetime.now(UTC)
    item = backlog.known_product(chance.randrange(backlog.PRODUCTS), now)
    customer = chance.randrange(backlog.CUSTOMERS)
    match _CYCLE[number % len(_CYCLE)]:
        case "product":
            kind, record = "product", item
        case "customer":
            kind, record = "customer", payloads.customer(customer, now)
        case "order":
            new = _new(chance)
            kind, record = "order", payloads.order(new, now, customer_number=customer, items=[item])
        case "PAYMENT":
            paid = chance.randrange(backlog.INVOICES)
            owner = paid % backlog.CUSTOMERS
            kind = "PAYMENT"
            record = payloads.payment(_new(chance), now, customer_number=owner, invoice_numbers=[paid])
        case _:
            kind = "invoice"
            record = payloads.invoice(_new(chance), now, customer_number=customer, item=item)
    return Seed(entity=kind, record=record, created_at=now)


def _new(chance: random.Random) -> int:
    """A number that no record of the seeded history has."""
    return chance.randrange(10_000, 900_000)
