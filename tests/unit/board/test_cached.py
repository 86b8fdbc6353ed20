"""A value that is read once for all who ask, and never for more than a share of the time."""

from __future__ import annotations

import asyncio

import pytest

from board import cached
from board.cached import Cached
from handlers.errors import DatabaseDown, TryAgain


class Reader:
    """Counts how often it reads; a *gate* holds a reading until it is opened."""

    def __init__(self) -> None:
        self.times = 0
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.times += 1
        self.begun.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.times


async def test_all_who_ask_at_once_get_one_reading() -> None:
    """Twenty scrapes are one query."""
    read = Reader()
    value = Cached(read, seconds=60)
    assert await asyncio.gather(*(value.get(5) for _ in range(20))) == [1] * 20
    assert await value.get(5) == 1


async def test_a_slow_reading_is_used_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading of two seconds is used for twenty, so that a tenth of the time is spent reading."""
    now = 100.0
    monkeypatch.setattr(cached, "monotonic", lambda: now)
    read = Reader()
    read.gate.clear()
    value = Cached(read, seconds=5)
    asking = asyncio.create_task(value.get(60))
    await read.begun.wait()
    now = 102.0
    read.gate.set()
    assert await asking == 1
    now = 121.9
    assert await value.get(60) == 1
    now = 122.0
    assert await value.get(60) == 2


async def test_an_error_is_kept_as_a_value_is() -> None:
    """A database that is away is not asked by each caller."""
    read = Reader()
    read.error = DatabaseDown("away")
    value = Cached(read, seconds=60)
    for _ in range(3):
        with pytest.raises(DatabaseDown):
            await value.get(5)
    assert read.times == 1


async def test_who_gives_up_does_not_end_the_reading_of_the_others() -> None:
    """An impatient caller is told so; the reading goes on, and the next one gets it."""
    read = Reader()
    read.gate.clear()
    value = Cached(read, seconds=60)
    with pytest.raises(TryAgain, match="still being read"):
        await value.get(0.01)
    read.gate.set()
    assert await value.get(5) == 1


async def test_closing_ends_what_is_being_read() -> None:
    """Nothing is left behind at the end of the program."""
    read = Reader()
    read.gate.clear()
    value = Cached(read, seconds=60)
    with pytest.raises(TryAgain):
        await value.get(0.01)
    await value.close()
    assert value._reading is not None
    assert value._reading.cancelled()
