"""The cables of rehearsal hosts: what a client sees while one is cut, and after it is plugged in again."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rehearsal.hosts.network import Cable, Network

PATIENCE = 0.3


class Echo(socketserver.StreamRequestHandler):
    """Answers each line with itself."""

    def handle(self) -> None:
        try:
            for line in self.rfile:
                self.wfile.write(line)
        except ConnectionError:
            pass


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest_asyncio.fixture(loop_scope="session")
async def network() -> AsyncIterator[Network]:
    """Two hosts with a port each, on which every line is answered."""
    servers = [Server(("127.0.0.1", 0), Echo) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
    ports = {f"web-{n}": [server.server_address[1]] for n, server in enumerate(servers, 1)}
    network = await Network.start(ports, rehearsal_id="test", tied=True)
    yield network
    network.stop()
    for server in servers:
        server.shutdown()
        server.server_close()


def connect(network: Network, host: str = "web-1", timeout: float = 10) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.ports(host)[0]), timeout)


def ask(client: socket.socket, timeout: float = 10) -> bytes:
    client.settimeout(timeout)
    client.sendall(b"hello\n")
    return client.recv(100)


async def test_a_cable_that_hangs_answers_nothing_and_loses_nothing(network: Network) -> None:
    """New connections find no peer, an open one is silent, and goes on where it was when the cable is back."""
    with connect(network) as client:
        assert ask(client) == b"hello\n"
        await network.set("web-1", Cable.HANGS)
        with pytest.raises(TimeoutError):
            ask(client, PATIENCE)
        with pytest.raises(TimeoutError):
            connect(network, timeout=PATIENCE)
        with connect(network, "web-2") as other:
            assert ask(other) == b"hello\n"
        await network.set("web-1", Cable.WORKS)
        client.settimeout(10)
        assert client.recv(100) == b"hello\n"
    with connect(network) as new:
        assert ask(new) == b"hello\n"


async def test_a_cable_that_loses_answers_carries_what_is_sent(network: Network) -> None:
    """An open connection hears nothing, though the host has answered; the answer comes when the cable is back."""
    with connect(network) as client:
        assert ask(client) == b"hello\n"
        await network.set("web-1", Cable.LOSES_ANSWERS)
        with pytest.raises(TimeoutError):
            ask(client, PATIENCE)
        with pytest.raises(TimeoutError):
            connect(network, timeout=PATIENCE)
        await network.set("web-1", Cable.WORKS)
        client.settimeout(10)
        assert client.recv(100) == b"hello\n"
        assert ask(client) == b"hello\n"


async def test_a_cable_that_refuses_resets_what_is_open(network: Network) -> None:
    """New connections are refused at once, open ones end, and the same port serves again afterwards."""
    with connect(network) as client:
        ask(client)
        await network.set("web-1", Cable.REFUSES)
        with pytest.raises(ConnectionRefusedError):
            connect(network)
        with pytest.raises(ConnectionResetError):
            ask(client)
    await network.set("web-1", Cable.HANGS)
    with pytest.raises(TimeoutError):
        connect(network, timeout=PATIENCE)
    await network.set("web-1", Cable.WORKS)
    with connect(network) as new:
        assert ask(new) == b"hello\n"
