"""A receiver on a real port, the calls that Zoho makes, and what they leave in the database."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import uvicorn
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.receiver.application import Settings, application
from handlers.receiver.serve import server_config

SECRET = "examplesecret1234"
TRANSPORT = Path(__file__).parents[2] / "payloads" / "_transport"
ITEM = {
    "item_id": "2646610000000113826",
    "name": "Wireless Mouse M185",
    "rate": 12.50,
    "last_modified_time": "2025-11-04T15:20:11+0300",
}
USER = {"user_id": "982000000554041", "name": "A clerk", "status": "active"}


class _Server(uvicorn.Server):
    """A server inside the tests' own loop, which leaves their signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def receiver(
    engine: AsyncEngine, *, secret: str | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a receiver that writes to *engine*'s database."""
    app = application(engine, Settings(secret=SecretStr(secret) if secret else None, **settings))
    # uvicorn mutes this logger for the whole process, in which other tests run as well.
    access_log = logging.getLogger("uvicorn.access")
    propagated = access_log.propagate
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = _Server(server_config(app))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        port = listening.getsockname()[1]
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20
            ) as client:
                yield client
        finally:
            server.should_exit = True
            await task
            access_log.propagate = propagated


def body(record: object, wrapper: str = "item") -> bytes:
    """The default form of a webhook's body."""
    return json.dumps({wrapper: record}).encode()


def signed(signed_text: bytes, secret: str = SECRET) -> dict[str, str]:
    """The header that signs *signed_text*, worked out here and not by the receiver's code."""
    return {"X-Zoho-Webhook-Signature": hmac.new(secret.encode(), signed_text, hashlib.sha256).hexdigest()}


def form(**fields: str) -> dict[str, Any]:
    """A form-encoded call, as arguments of a post."""
    return {
        "content": urlencode(fields).encode(),
        "headers": {"Content-Type": "application/x-www-form-urlencoded;charset=UTF-8"},
    }


async def rows(engine: AsyncEngine) -> Sequence[Any]:
    """Every event with its inbox row, in the order in which workers apply them."""
    async with engine.connect() as tx:
        found = await tx.execute(
            text(
                "SELECT q.*, q.entity_type::text AS kind, q.operation_type::text AS operation, "
                "i.webhook_headers, i.raw_payload, i.content_hash, i.signature_verified, i.ip_address, i.is_valid, "
                "i.moved_to_queue FROM tds_sync_queue q JOIN tds_inbox_events i ON i.id = q.inbox_event_id "
                "ORDER BY q.created_at, q.id"
            )
        )
        return found.mappings().all()


async def bury_all(engine: AsyncEngine) -> None:
    """Make every event a dead letter."""
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE tds_sync_queue SET status = 'dead_letter'"))
