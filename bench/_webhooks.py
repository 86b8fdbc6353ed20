"""Sends signed webhooks to a receiver at a set rate, as a process of its own, and says how long each answer took.

A call is due at its time whether or not the ones before it were answered, and waits from then on: a receiver that
falls behind is seen to fall behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from handlers.entities import registry
from handlers.entities.document import dump
from handlers.queue.event import EntityType

EXAMPLES = Path(__file__).parents[1] / "tests" / "payloads"
SMALLEST, LARGEST = 2000, 21_000
"""Bytes of the examples that are sent: what a real webhook has."""
CONNECTIONS_MAX = 128
_ID, _STAMP = "9990000000000000001", "2025-11-04T15:20:11+0300"
_TICK_SECONDS = 0.001
_ANSWERS_SECONDS = 30.0


def templates() -> list[tuple[str, bytes]]:
    """The address and the body of every example of a real size, each with an id that can be replaced."""
    found = []
    for entity in EntityType:
        handler = registry.handler(entity)
        for path in sorted((EXAMPLES / entity.value.lower()).glob("*.json")):
            text = path.read_text(encoding="utf-8")
            if not SMALLEST <= len(text) <= LARGEST:
                continue
            data = registry.unwrap(entity, text)[0].data
            record = data | {handler.id_keys[0]: _ID, "last_modified_time": _STAMP}
            found.append((f"/webhooks/{entity.value}", dump({handler.wrappers[0]: record}).encode()))
    return found


def requests(port: int, secret: str, number: int, first: int) -> Iterator[bytes]:
    """*number* whole requests, each about another record, in a mix that is the same in every run."""
    chance = random.Random(7)
    forms = templates()
    for at in range(first, first + number):
        path, form = chance.choice(forms)
        body = form.replace(_ID.encode(), f"{2646610000000000000 + at}".encode())
        signature = hmac.new(secret.encode(), b"eventedited" + body, hashlib.sha256).hexdigest()
        yield (
            f"POST {path}?event=edited HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: ZohoBooks\r\n"
            f"Accept: */*\r\nContent-Type: application/json;charset=UTF-8\r\nX-Zoho-Webhook-Signature: {signature}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body


class Connection(asyncio.Protocol):
    """One connection that sends a request and waits for the answer before it takes the next."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._heard = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._due = due
        self._heard = b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self._due:
            return
        self._heard += data
        head, found, body = self._heard.partition(b"\r\n\r\n")
        if not found:
            return
        _, _, length = head.lower().partition(b"content-length:")
        if len(body) >= int(length.split(b"\r\n", 1)[0]):
            due, self._due = self._due, 0.0
            self._load.answered(self, int(head[9:12]), due)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._load.lost(self)


class Load:
    """Calls that are due one after the other, on as many connections as that needs."""

    def __init__(self, port: int, calls: deque[bytes], rate: float) -> None:
        self.took: list[float] = []
        self.statuses: Counter[int] = Counter()
        self._port = port
        self._calls = calls
        self._rate = rate
        self._total = len(calls)
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._idle: list[Connection] = []
        self._done = asyncio.Event()

    async def run(self) -> float:
        """Send all calls; the seconds until the last answer."""
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS_MAX):
            _, one = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
            self._idle.append(one)
        began = time.perf_counter()
        sent = 0
        while self._calls:
            due = int((time.perf_counter() - began) * self._rate) + 1
            while sent < due and self._calls:
                self._waiting.append((self._calls.popleft(), began + sent / self._rate))
                sent += 1
            self._hand_out()
            await asyncio.sleep(_TICK_SECONDS)
        try:
            await asyncio.wait_for(self._done.wait(), _ANSWERS_SECONDS)
        except TimeoutError:
            self.statuses[0] += self._total - sum(self.statuses.values())
        return time.perf_counter() - began

    def _hand_out(self) -> None:
        while self._waiting and self._idle:
            self._idle.pop().send(*self._waiting.popleft())

    def answered(self, one: Connection, status: int, due: float) -> None:
        self.took.append(time.perf_counter() - due)
        self.statuses[status] += 1
        self._idle.append(one)
        self._hand_out()
        if len(self.took) == self._total:
            self._done.set()

    def lost(self, one: Connection) -> None:
        if one in self._idle:
            self._idle.remove(one)


async def main() -> None:
    task: dict[str, Any] = json.loads(sys.argv[1])
    calls = deque(requests(task["port"], task["secret"], task["number"], task["first"]))
    size = sum(map(len, calls)) / len(calls)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    load = Load(task["port"], calls, task["rate"])
    seconds = await load.run()
    took = sorted(load.took) or [float("inf")]
    told = {
        "seconds": seconds,
        "bytes": size,
        "p50": took[len(took) // 2],
        "p99": took[int(len(took) * 0.99)],
        "statuses": {str(status): number for status, number in load.statuses.items()},
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
