"""Why an address gave no HTTP answer: one sentence for each kind of failure."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

import httpx
from cryptography import x509

_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "RECORD_LAYER_FAILURE",
    "UNEXPECTED_MESSAGE",
    "PACKET_LENGTH",
)
"""OpenSSL's reasons for bytes that are no TLS record."""


_ASK_SECONDS = 1.0
HEALTH_URL = "its health_url"
"""What the sentences call the key of the environment file that the address comes from."""
_ADDRESSES = {HEALTH_URL: "its health address"}


async def connection_fault(error: Exception, url: str, *, key: str = HEALTH_URL) -> str:
    """The fault behind *error*. It may connect to the address once more, for a second, to name the reason.

    *key* is the key of the environment file that the address comes from.
    """
    try:
        where = httpx.URL(url)
    except httpx.InvalidURL:
        where = httpx.URL("")
    if not where.host or where.scheme not in ("http", "https"):
        return f"{key} is no http:// or https:// address"
    return await _fault(error, where, key)


async def tls_fault(url: str, *, key: str = HEALTH_URL) -> str:
    """The fault of an http address where the server expects TLS; empty when it does not."""
    where = httpx.URL(url)
    speaks_tls = where.scheme == "http" and await _peer_certificate(where) is not None
    return f"it answers with TLS: {key} must begin with https://" if speaks_tls else ""


async def _fault(error: Exception, where: httpx.URL, key: str) -> str:
    links = list(_links(error))
    for link in links:
        if isinstance(link, ssl.SSLCertVerificationError):
            return await _certificate_fault(link, where)
        if (sentence := _network_fault(link, where, key)) is not None:
            return sentence
    if fault := await tls_fault(str(where), key=key):
        return fault
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
        return "its answer is not HTTP"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        reset = any(isinstance(link, ConnectionResetError | ssl.SSLEOFError) for link in links)
        return f"the connection was {'reset' if reset else 'closed'} before it answered"
    return f"no answer ({str(error) or type(error).__name__})"


def _network_fault(link: BaseException, where: httpx.URL, key: str) -> str | None:
    """The fault that one link of the chain names, if it names one."""
    sentence = None
    match link:
        case ssl.SSLEOFError():
            pass
        case ssl.SSLError() if any(reason in (link.reason or "") for reason in _NOT_TLS):
            sentence = f"it answers without TLS: {key} must begin with http://"
        case ssl.SSLError():
            sentence = f"the TLS handshake failed ({link.reason or link})"
        case socket.gaierror() if link.errno == socket.EAI_AGAIN:
            sentence = f"the name {where.host} cannot be looked up now (DNS does not answer)"
        case socket.gaierror():
            sentence = f"no such host name: {where.host}"
        case ConnectionRefusedError():
            sentence = f"nothing listens at {_ADDRESSES.get(key, key)}"
        case OSError() if link.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            sentence = f"no route to {_ADDRESSES.get(key, key)}"
        case httpx.TimeoutException():
            sentence = "no answer in time"
        case _:
            pass
    return sentence


def _links(error: BaseException) -> Iterator[BaseException]:
    """*error* and what caused it. Several addresses of one name fail together, as a group."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        if isinstance(link, BaseExceptionGroup):
            for inner in link.exceptions:
                yield from _links(inner)
        link = link.__cause__ or link.__context__


async def _certificate_fault(error: ssl.SSLCertVerificationError, where: httpx.URL) -> str:
    certificate = await _peer_certificate(where)
    # OpenSSL's codes: 10 expired, 9 not yet valid, 62 another host name, 64 another IP address.
    match error.verify_code, certificate:
        case 10, x509.Certificate():
            return f"its certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        case 9, x509.Certificate():
            return (
                f"its certificate is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
            )
        case ((62 | 64), x509.Certificate()):
            return (
                f"its certificate is for {', '.join(_names(certificate)) or 'no name'}, not for {where.host}"
            )
        case _, x509.Certificate():
            issuer = certificate.issuer.rfc4514_string()
            return f"its certificate is not trusted: issued by {issuer}; set probe.ca_file to that CA's certificate"
        case _:
            return f"its certificate is not trusted: {error.verify_message}"


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


async def _peer_certificate(where: httpx.URL) -> x509.Certificate | None:
    """The certificate that is shown at the address, whatever it is worth; None when there is no TLS."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = where.port or (443 if where.scheme == "https" else 80)
    with suppress(OSError, ValueError):
        async with asyncio.timeout(_ASK_SECONDS):
            _, writer = await asyncio.open_connection(where.host, port, ssl=context)
        try:
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return x509.load_der_x509_certificate(shown) if shown else None
        finally:
            writer.transport.abort()
    return None
