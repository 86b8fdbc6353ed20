"""Each way in which a health address can fail to answer has a sentence of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from handlers.core import http_client
from handlers.environment.model import Probe
from handlers.host.health_fault import connection_fault, tls_fault
from tests.certificates import Authority

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that no system trusts."""
    return Authority(tmp_path_factory.mktemp("ca"), "Our CA")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No CA and no proxy of this machine's environment takes part."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


async def good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer to any request; as servers do, also to one that is no HTTP."""
    status = b"200 OK" if (await reader.read(65536)).startswith(b"GET ") else b"400 Bad Request"
    writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    await writer.drain()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65536)
    # SO_LINGER 0: close with RST.
    import socket
    import struct

    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65536)


async def speaks_ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65536)
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    await writer.drain()


async def is_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


@asynccontextmanager
async def serving(handler: Handler, files: tuple[Path, Path] | None = None) -> AsyncIterator[int]:
    """A server on loopback, with TLS by a certificate and its key; yields its port."""
    context = None
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handled, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def fault(url: str, ca_file: Path | None = None) -> str:
    """The fault of an address; `answers` when there is none."""
    probe = Probe(ca_file=ca_file, answer_seconds=1)
    async with http_client(probe) as http:
        try:
            await http.get(url)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return await connection_fault(error, url)
    return "answers"


async def test_an_own_ca_is_trusted_by_its_file(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By probe.ca_file and by SSL_CERT_FILE; without them the sentence names who issued the certificate."""
    files = authority.issue("web", ["localhost", "127.0.0.1"])
    async with serving(good, files) as port:
        url = f"https://localhost:{port}/health"
        untrusted = await fault(url)
        assert untrusted == (
            "its certificate is not trusted: issued by CN=Our CA; set probe.ca_file to that CA's certificate"
        )
        assert await fault(url, authority.file) == "answers"
        assert await fault(f"https://127.0.0.1:{port}/health", authority.file) == "answers"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert await fault(url) == "answers"


async def test_a_certificate_that_is_wrong_says_how(authority: Authority) -> None:
    """Expired and for another name are different faults than an unknown CA."""
    async with serving(good, authority.issue("old", ["localhost"], days=-1)) as port:
        assert "its certificate expired on 20" in await fault(f"https://localhost:{port}/", authority.file)
    async with serving(good, authority.issue("other", ["db.internal"])) as port:
        for name in ("localhost", "127.0.0.1"):
            sentence = await fault(f"https://{name}:{port}/", authority.file)
            assert sentence == f"its certificate is for db.internal, not for {name}"


async def test_a_ca_file_that_cannot_be_used_is_named_by_its_key(
    tmp_path: Path, authority: Authority
) -> None:
    """Only for https: a plain address is asked as before."""
    broken = tmp_path / "ca.pem"
    broken.write_text("not a certificate")
    async with serving(good, authority.issue("here", ["localhost"])) as port:
        assert "probe.ca_file: cannot read /nowhere" in await fault(
            f"https://localhost:{port}/", Path("/nowhere/ca.pem")
        )
        assert f"probe.ca_file: {broken} has no certificate" in await fault(
            f"https://localhost:{port}/", broken
        )
    async with serving(good) as port:
        assert await fault(f"http://localhost:{port}/", broken) == "answers"


async def test_http_and_https_are_told_apart(authority: Authority) -> None:
    """A scheme that does not fit the port is named, in both directions."""
    async with serving(good, authority.issue("tls", ["localhost"])) as port:
        assert await fault(f"http://localhost:{port}/") == (
            "it answers with TLS: its health_url must begin with https://"
        )
        # Some servers answer with HTTP 400 instead.
        assert await tls_fault(f"http://localhost:{port}/") != ""
    async with serving(good) as port:
        assert await tls_fault(f"http://localhost:{port}/") == ""
        assert await fault(f"https://localhost:{port}/") == (
            "it answers without TLS: its health_url must begin with http://"
        )


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        (resets, "the connection was reset before it answered"),
        (closes, "the connection was closed before it answered"),
        (speaks_ssh, "its answer is not HTTP"),
        (is_silent, "no answer in time"),
    ],
)
async def test_a_port_that_does_not_answer_says_how(handler: Handler, sentence: str) -> None:
    """A reset, an end, another protocol and silence differ."""
    async with serving(handler) as port:
        assert await fault(f"http://127.0.0.1:{port}/") == sentence


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:1/", "nothing listens at its health address"),
        ("http://localhost:1/", "nothing listens at its health address"),
        ("http://web-1.does-not-exist.invalid/", "no such host name: web-1.does-not-exist.invalid"),
        ("https://web-1.does-not-exist.invalid/", "no such host name: web-1.does-not-exist.invalid"),
        ("web-1:8000/health", "its health_url is no http:// or https:// address"),
        ("http://[::1/", "its health_url is no http:// or https:// address"),
    ],
)
async def test_an_address_that_leads_nowhere_says_why(url: str, sentence: str) -> None:
    """Nothing listens, no such name, and no address at all differ."""
    assert await fault(url) == sentence
