"""The network cables of rehearsal hosts: a relay in front of each port, which can be cut and plugged in again.

It runs as its own process, so that a busy rehearsal does not slow the hosts down. Standard library only.

Standard input has one command a line, `CABLE STATE`; each is answered with a line. The first lines define the
cables: `CABLE PORT PORT...` until an empty line; they are answered with the ports to connect to instead.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Iterator

from rehearsal import ports

_CHUNK = 65536
_FILLERS_MAX = 20
_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends a reset, as a host does that does not know the connection."""


class Relay:
    """One port in front of another. While it *hangs* nothing is answered, not even the attempt to connect."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._placeholder = ports.reserve()
        self._listener: socket.socket | None = None
        self._ends: set[socket.socket] = set()
        self._fillers: list[socket.socket] = []
        self._accepting: asyncio.Task[None] | None = None
        self._moving = asyncio.Event()
        self._answering = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that clients connect to. It stays ours while nothing listens."""
        port: int = self._placeholder.getsockname()[1]
        return port

    async def works(self) -> None:
        """Carry connections. Those that were open while the cable was cut continue."""
        if self._listener is None:
            self._listener = _listen(self.port)
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        self._listener.listen(128)
        self._moving.set()
        self._answering.set()
        if self._accepting is None:
            self._accepting = asyncio.create_task(self._accept(self._listener))

    async def hangs(self) -> None:
        """Answer nothing: open connections are silent, and new ones find no peer, as when packets are dropped."""
        await self.loses_answers()
        self._moving.clear()

    async def loses_answers(self) -> None:
        """Carry what is sent and no answer. New connections find no peer: the answer to their first packet is lost."""
        await self._stop_accepting()
        self._moving.set()
        self._answering.clear()
        if self._listener is None:
            self._listener = _listen(self.port)
        # With its queue of connections full, the kernel drops every further attempt without an answer.
        self._listener.listen(0)
        for _ in range(_FILLERS_MAX):
            filler = socket.socket()
            filler.setblocking(False)
            self._fillers.append(filler)
            try:
                async with asyncio.timeout(0.1):
                    await asyncio.get_running_loop().sock_connect(filler, ("127.0.0.1", self.port))
            except TimeoutError:
                break

    async def refuses(self) -> None:
        """Reset open connections and refuse new ones, as a host does on which no server runs."""
        await self._stop_accepting()
        for end in self._ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        for task in self._tasks:
            task.cancel()
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def end(self) -> None:
        """Give the port up, after `refuses`."""
        self._placeholder.close()

    async def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
            self._accepting = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            client.setblocking(False)
            task = asyncio.create_task(self._carry(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, client: socket.socket) -> None:
        server = socket.socket()
        server.setblocking(False)
        self._ends |= {client, server}
        try:
            await asyncio.get_running_loop().sock_connect(server, ("127.0.0.1", self._target_port))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as both:
                both.create_task(_move(client, server, self._moving))
                both.create_task(_move(server, client, self._answering))
        except* OSError:
            pass
        finally:
            self._ends -= {client, server}
            client.close()
            server.close()


async def _move(source: socket.socket, target: socket.socket, works: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        await works.wait()
        await loop.sock_sendall(target, data)
    await works.wait()
    target.shutdown(socket.SHUT_WR)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _definitions() -> Iterator[tuple[str, list[Relay]]]:
    while words := sys.stdin.readline().split():
        yield words[0], [Relay(int(port)) for port in words[1:]]


async def serve(*, tied: bool) -> None:
    """Serve the cables that stdin defines; *tied* ends with stdin, otherwise they stay as they are."""
    cables = dict(_definitions())
    for relays in cables.values():
        for relay in relays:
            await relay.works()
    print(*(relay.port for relays in cables.values() for relay in relays), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, state = line.split()
        for relay in cables[name]:
            states = {
                "works": relay.works,
                "hangs": relay.hangs,
                "loses-answers": relay.loses_answers,
                "refuses": relay.refuses,
            }
            await states[state]()
        print("done", flush=True)
    if not tied:
        await asyncio.Event().wait()


def main() -> None:
    """Serve until the end of stdin, or with the word `stay` until we are killed."""
    asyncio.run(serve(tied="stay" not in sys.argv))
