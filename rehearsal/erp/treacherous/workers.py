# mypy: ignore-errors
"""The workers of the sync queue: the sync core, with our own handler for items."""

import asyncio
import functools
import logging
import os

import beat
from reorder import handlers
from revision import REVISION

from handlers.entities.apply import apply_events
from handlers.worker.service import serve

LEASE_SECONDS = 8


def main() -> None:
    """Work until SIGTERM."""
    logging.basicConfig(level=logging.INFO)
    beat.start()
    try:
        asyncio.run(
            serve(
                os.environ["ERP_DATABASE_URL"],
                revision=REVISION,
                apply=functools.partial(apply_events, handlers=handlers()),
                owner=f"{os.environ.get('ERP_HOST', 'erp')}-{os.getpid()}",
                lease_seconds=LEASE_SECONDS,
            )
        )
    finally:
        beat.stop()


if __name__ == "__main__":
    main()
