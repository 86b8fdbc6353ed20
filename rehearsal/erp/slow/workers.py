# mypy: ignore-errors
"""The workers of the sync queue."""

import asyncio
import contextlib
import signal

import beat


class ExchangeRates:
    """The rates of the day, which every worker needs before it takes its first webhook."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._today: dict[str, float] | None = None

    async def today(self) -> dict[str, float]:
        async with self._lock:
            if self._today is None:
                await self.refresh()
            return self._today or {}

    async def refresh(self) -> None:
        async with self._lock:
            self._today = {"USD": 1310.0}


async def main() -> None:
    """Fetch the rates, then take work, until SIGTERM."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    rates = ExchangeRates()
    await rates.today()


if __name__ == "__main__":
    beat.start()
    try:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(main())
    finally:
        beat.stop()
