"""Servers that messages are sent to: real HTTP and real SMTP on loopback, which answer as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message as Mail
from typing import Any

with warnings.catch_warnings():
    # Apprise and its plugins import modules that Python will remove. They are loaded here once for all tests.
    warnings.simplefilter("ignore")
    import apprise

    apprise.Apprise.instantiate("json://127.0.0.1")


@dataclass(kw_only=True)
class Listener:
    """A server, what it got, and what it answers."""

    port: int = 0
    got: list[Any] = field(default_factory=list)
    """The JSON bodies, or the mails, in the order in which they came."""
    paths: list[str] = field(default_factory=list)
    status: int = 200
    reply: bytes = b"{}"
    hangs: bool = False
    """Whether it reads a call, and never answers."""
    tried: int = 0


@asynccontextmanager
async def http_listener() -> AsyncIterator[Listener]:
    """An HTTP server that keeps every JSON body that is posted to it."""
    listener = Listener()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
        )
        body = await reader.readexactly(length)
        listener.tried += 1
        if listener.hangs:
            await reader.read()
        elif listener.status < 300:
            listener.got.append(json.loads(body))
            listener.paths.append(head.split()[1])
        answer = f"HTTP/1.1 {listener.status} So\r\ncontent-type: application/json\r\nconnection: close\r\n"
        writer.write(f"{answer}content-length: {len(listener.reply)}\r\n\r\n".encode() + listener.reply)

    async with _server(listener, serve):
        yield listener


@asynccontextmanager
async def smtp_listener() -> AsyncIterator[Listener]:
    """An SMTP server that keeps every mail. With a status of 400 and above it refuses them."""
    listener = Listener()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            if listener.hangs:
                await reader.read()
                return
            match line[:4].upper():
                case b"EHLO" | b"HELO":
                    writer.write(b"250 here\r\n")
                case b"DATA":
                    listener.tried += 1
                    if listener.status >= 400:
                        writer.write(b"451 4.3.0 try again later\r\n")
                        continue
                    writer.write(b"354 go on\r\n")
                    listener.got.append(_mail(await reader.readuntil(b"\r\n.\r\n")))
                    writer.write(b"250 2.0.0 taken\r\n")
                case b"QUIT":
                    writer.write(b"221 bye\r\n")
                    return
                case _:
                    writer.write(b"250 fine\r\n")

    async with _server(listener, serve):
        yield listener


def _mail(data: bytes) -> Mail:
    return message_from_bytes(data.removesuffix(b".\r\n"))


@asynccontextmanager
async def _server(listener: Listener, serve: Any) -> AsyncIterator[None]:
    open_calls: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_calls.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
                await writer.drain()
        finally:
            open_calls.discard(task)
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", listener.port)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        for task in list(open_calls):
            task.cancel()
        await asyncio.gather(*open_calls, return_exceptions=True)
