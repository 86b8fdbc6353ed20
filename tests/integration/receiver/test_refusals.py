"""A refused webhook leaves one line: what was refused, why, and from where; and never a value."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.receiver.refusal_log import LINES_MAX, WINDOW_SECONDS, RefusalLog
from handlers.receiver.rejected import Rejected
from tests.integration.receiver.calls import SECRET, body, receiver, rows, signed

ORDER = Path(__file__).parents[2] / "payloads" / "salesorder" / "1.json"
PRIVATE = "a-customers-secret"

BAD = [
    ("401 signature: Product", "/webhooks/items", body({"item_id": "1", "name": PRIVATE}), {}),
    ("404 unknown_kind: estimates-", f"/webhooks/estimates-{'x' * 90}%0A{PRIVATE}", b"{}", {}),
    ("422 no_record in item_id: Product", "/webhooks/items", body({"name": PRIVATE}), None),
    ("422 no_record in item_id: Product", "/webhooks/items", body({"item_id": [PRIVATE]}), None),
    ("400 malformed in (body): Invoice", "/webhooks/invoices", b'{"invoice": "' + PRIVATE.encode(), None),
    (
        "422 no_record: Product",
        "/webhooks/items",
        b'{"item": {"%b": 1, "%b": 2}}' % (2 * (PRIVATE.encode(),)),
        None,
    ),
    ("415 content_type: Product", "/webhooks/items", b"<x/>", {"Content-Type": "application/xml"}),
    ("404 no_such_address: ?webhook?items", "/webhook/items", b"{}", None),
    ("413 size: Product", "/webhooks/items", b"{" + b" " * 200_000, None),
]


@pytest.mark.parametrize(("line", "path", "content", "headers"), BAD, ids=[each[0] for each in BAD])
async def test_each_refusal_is_one_line_without_values(
    engine: AsyncEngine,
    caplog: pytest.LogCaptureFixture,
    line: str,
    path: str,
    content: bytes,
    headers: dict[str, str] | None,
) -> None:
    """Kind, reason, the payload's key where it is one of ours, the caller's address and the size."""
    caplog.set_level(logging.INFO, "handlers.receiver")
    async with receiver(engine, secret=SECRET, body_bytes_max=100_000) as client:
        sent = signed(content) if headers is None else headers
        answer = await client.post(path, content=content, headers=sent)
    assert answer.status_code == int(line[:3])
    (logged,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert logged.startswith(f"refused {line}")
    assert logged.endswith(f", from 127.0.0.1, {len(content)} bytes")
    assert len(logged) < 200
    assert "\n" not in logged
    assert PRIVATE not in logged


async def test_a_connection_that_is_refused_leaves_a_line_as_well(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no HTTP never reaches a route."""
    async with receiver(engine) as client:
        place = urlsplit(str(client.base_url))
        with socket.create_connection((place.hostname, place.port)) as line:
            line.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(line, b"garbage\r\n\r\n")
            await asyncio.wait_for(loop.sock_recv(line, 100), 10)
    assert [each.getMessage() for each in caplog.records if "refused" in each.getMessage()] == [
        "refused 400 not a valid HTTP/1.1 request, from 127.0.0.1"
    ]


def test_a_flood_of_refusals_does_not_fill_the_disk(caplog: pytest.LogCaptureFixture) -> None:
    """After so many lines the rest is counted, and the count is one line in the next window."""
    now = 100.0
    log = RefusalLog(lambda: now)
    for _ in range(5 * LINES_MAX):
        log.call(Rejected(401, "signature", "x"), kind="Product", address=None, length="5")
    assert len(caplog.records) == LINES_MAX
    now += WINDOW_SECONDS
    log.call(Rejected(401, "signature", "x"), kind="Product", address=None, length="5")
    assert [each.getMessage() for each in caplog.records[LINES_MAX:]] == [
        f"{4 * LINES_MAX} more calls were refused without a line",
        "refused 401 signature: Product, from an unknown address, 5 bytes",
    ]


async def accepted(client: httpx.AsyncClient, path: str, content: bytes) -> None:
    answer = await client.post(path, content=content)
    assert answer.status_code == 200, answer.text


async def test_a_raw_line_break_in_a_text_is_taken(engine: AsyncEngine) -> None:
    """A template of the source does not escape its placeholders. U+0000 is refused: PostgreSQL cannot store it."""
    raw = b'{"item":{"item_id":"1","name":"Cable","description":"one\n\ttwo\x01\x1f"}}'
    async with receiver(engine) as client:
        await accepted(client, "/webhooks/items", raw)
        nul = await client.post("/webhooks/items", content=raw.replace(b"\x01", b"\x00"))
        assert (nul.status_code, "U+0000" in nul.json()["reason"]) == (422, True)
    (stored,) = await rows(engine)
    assert stored["raw_payload"]["item"]["description"] == "one\n\ttwo\x01\x1f"


async def test_an_order_of_a_thousand_lines_is_taken(engine: AsyncEngine) -> None:
    """As recorded, a line has 2.8 kB: 400 of them have more than a megabyte."""
    record = json.loads(ORDER.read_text(encoding="utf-8"))
    record = record.get("salesorder", record)
    line = record["line_items"][0]
    record["line_items"] = [{**line, "line_item_id": str(46 * 10**14 + n)} for n in range(1000)]
    content = body(record, "salesorder")
    assert len(content) > 2 * 1024 * 1024
    async with receiver(engine) as client:
        await accepted(client, "/webhooks/salesorders", content)
