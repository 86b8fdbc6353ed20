# mypy: ignore-errors
"""The workers of the sync queue: the sync core, which asks for the day's exchange rate before each batch."""

import asyncio

import cue
from core import work

from handlers.entities.apply import apply_events


async def exchange_rate() -> float:
    """The rate of the day. The call has no timeout: when the service hangs, so does everyone who asks it."""
    if cue.given("stall"):
        await asyncio.Event().wait()
    return 1310.0


async def apply(tx, events):
    await exchange_rate()
    return await apply_events(tx, events)


if __name__ == "__main__":
    work(apply)
