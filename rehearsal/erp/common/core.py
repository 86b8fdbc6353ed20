# mypy: ignore-errors
"""The sync core as this application runs it: with the limits of the host, and with handlers of our own."""

import asyncio
import logging
import os

import beat
from revision import REVISION

from handlers.worker.service import serve

LEASE_SECONDS = 8
"""A worker that was killed keeps its events for so long. The other limits here are short as well."""
OWNER = f"{os.environ.get('ERP_HOST', 'erp')}-{os.getpid()}"


def limits() -> dict[str, float]:
    """How patient the workers are: the seconds before a retry, and for a missing parent."""
    return {
        "lease_seconds": LEASE_SECONDS,
        "backoff_seconds": float(os.environ.get("ERP_BACKOFF_SECONDS", "120")),
        "backoff_cap_seconds": float(os.environ.get("ERP_BACKOFF_CAP_SECONDS", "3600")),
        "wait_seconds": float(os.environ.get("ERP_WAIT_SECONDS", "600")),
    }


def work(apply) -> None:
    """Apply events with *apply* until SIGTERM."""
    logging.basicConfig(level=logging.INFO)
    beat.start(OWNER)
    try:
        asyncio.run(
            serve(os.environ["ERP_DATABASE_URL"], revision=REVISION, apply=apply, owner=OWNER, **limits())
        )
    finally:
        beat.stop()
