"""An upstream for tests: an HTTP server on loopback whose status can be changed while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class UpstreamServer:
    """What it answers, and how often it was asked."""

    port: int = 0
    statuses: list[int] = field(default_factory=lambda: [200])
    """The next answers; the last one repeats."""
    silent: bool = False
    """It accepts connections and says nothing."""
    headers: str = ""
    asked: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Its address, with a query that no sentence may show."""
        return f"http://127.0.0.1:{self.port}/books/v3/organizations?organization_id=s3ntinel"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        self.open.add(writer)
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        if self.silent:
            await reader.read()
            return
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        head = f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n{self.headers}\r\n{{}}"
        writer.write(head.encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def upstream_server(*statuses: int) -> AsyncIterator[UpstreamServer]:
    """An upstream that answers these statuses in turn, and then the last one."""
    upstream = UpstreamServer(statuses=list(statuses) or [200])

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await upstream.answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(handled, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for writer in upstream.open:
            writer.transport.abort()
