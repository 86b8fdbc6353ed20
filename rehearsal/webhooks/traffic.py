"""Live webhooks during a rehearsal: what customers and clerks do before, during and after a release.

They flow from the moment the target is up. The broken revision, which runs first, applies everything in them: only
new items and invoices meet its bug, and there are none here. So a plan's dead letters do not become more while it is
made, and whatever fails is the fault of the released revision.

Nearly all of them are about records that come again and again. Some are new, and one in twenty is an order that comes
before its customer and waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.sqlstate import DRIVER_ERRORS
from rehearsal.webhooks import backlog, known, payloads
from rehearsal.webhooks.backlog import Seed

Mix = Literal["everyday", "recurring"]
"""Everything, or only records of the pool that comes again and again."""

SEED = 20251114
_CHILD, _PARENT = "order of a new customer", "the new customer"
_CYCLE = (
    *(
        "product",
        "customer",
        "product",
        "invoice",
        "product",
        _CHILD,
        "product",
        _PARENT,
        "product",
        "PAYMENT",
    ),
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
POOL = (*("product",) * 18, *("customer",) * 6, *("invoice",) * 6)
"""The thirty records of the mix `recurring`, one after the other."""
_LAST_WORDS = 20
"""How often the customer of an order that was sent is tried at the end."""


async def traffic(
    engine: AsyncEngine,
    stop: asyncio.Event,
    per_second: float,
    received: list[UUID] | None = None,
    *,
    mix: Mix = "everyday",
    seed: int = SEED,
) -> int:
    """Insert webhooks as the receiver would until *stop* is set; returns how many. *received* gets their ids.

    A database that is down for a moment loses what was sent meanwhile, as with a receiver in front of it. Only a
    customer whose order was sent is sent again: the source repeats a call that was not answered.
    """
    chance = random.Random(seed)
    owed: list[Seed] = []
    sent = 0

    async def accepted(event: Seed) -> bool:
        try:
            await send(engine, event)
        except DRIVER_ERRORS:
            return False
        if received is not None:
            received.append(event.id)
        return True

    loop = asyncio.get_running_loop()
    began = loop.time()
    number = 0
    for number in itertools.count():
        pause = began + number / per_second - loop.time()
        if pause > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
        if stop.is_set():
            break
        owed = [event for event in owed if not await accepted(event)]
        event = webhook(number, chance, mix=mix)
        if await accepted(event):
            sent += 1
        elif _is_parent(number, mix):
            owed.append(event)
    # The customers of the last orders still come.
    owed += [
        webhook(later, chance, mix=mix) for later in range(number, number + 3) if _is_owed(later, number, mix)
    ]
    for _ in range(_LAST_WORDS):
        owed = [event for event in owed if not await accepted(event)]
        if not owed:
            break
        await asyncio.sleep(0.5)
    return sent


async def send(engine: AsyncEngine, event: Seed) -> None:
    """Receive one webhook: inbox, queue and the call to the workers, in one transaction."""
    async with engine.begin() as tx:
        await backlog.insert(tx, [event])
        await tx.execute(backlog.query("call_workers"))


def webhook(number: int, chance: random.Random, *, mix: Mix = "everyday") -> Seed:
    """The *number*th webhook: a change of something the ERP knows, or something new."""
    now = datetime.now(UTC)
    if mix == "recurring":
        kind = POOL[number % len(POOL)]
        return Seed(entity=kind, record=known.record(kind, number % len(POOL), now), created_at=now)
    match _CYCLE[number % len(_CYCLE)]:
        case "PAYMENT":
            invoice = chance.randrange(known.INVOICES)
            owner = invoice % known.CUSTOMERS
            new = payloads.payment(_new(chance), now, customer_number=owner, invoice_numbers=[invoice])
            return Seed(entity="PAYMENT", record=new, created_at=now)
        case kind if kind == _CHILD:
            # The customer comes two webhooks later.
            item = known.record("product", chance.randrange(known.PRODUCTS), now)
            new = payloads.order(_new(chance), now, customer_number=_new_customer(number + 2), items=[item])
            return Seed(entity="order", record=new, created_at=now)
        case kind if kind == _PARENT:
            return Seed(
                entity="customer", record=payloads.customer(_new_customer(number), now), created_at=now
            )
        case kind:
            return Seed(entity=kind, record=known.record(kind, chance.randrange(10_000), now), created_at=now)


def _is_parent(number: int, mix: Mix) -> bool:
    return mix == "everyday" and _CYCLE[number % len(_CYCLE)] == _PARENT


def _is_owed(number: int, end: int, mix: Mix) -> bool:
    """Whether the webhook *number*, which was not sent until the *end*, is the parent of one that was."""
    return _is_parent(number, mix) and number - 2 < end


def _new_customer(number: int) -> int:
    """The customer that the webhook *number* is about: none of the seeded history."""
    return 100_000 + number


def _new(chance: random.Random) -> int:
    """A number that no record of the seeded history has."""
    return chance.randrange(10_000, 900_000)
