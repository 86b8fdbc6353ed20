"""Zoho's signature of a webhook, computed over the raw bytes before they are parsed.

The signed text is every parameter of the query and of a form, sorted by name, each as its name directly followed by
its decoded value, all without separators; then the body itself where it is JSON.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from handlers.receiver.rejected import Rejected

HEADER = b"x-zoho-webhook-signature"
PAIRS_MAX = 1000
"""The largest record has 250 fields; half a million would take a second to parse, before the signature check."""
Pair = tuple[bytes, bytes]

_HEX = re.compile(rb"[0-9a-fA-F]{64}")


def pairs(encoded: bytes) -> list[Pair]:
    """The parameters of a query or form in their order, decoded to bytes; blank values are kept."""
    if encoded.count(b"&") >= PAIRS_MAX:
        raise Rejected(400, "malformed", f"more than {PAIRS_MAX} fields")
    parameters = []
    for part in encoded.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            parameters.append((_decoded(name), _decoded(value)))
    return parameters


def text_to_sign(parameters: Sequence[Pair], json_body: bytes) -> bytes:
    """The bytes that the source signs. *json_body* is empty if the body is a form."""
    ordered = sorted(parameters, key=lambda pair: pair[0])
    return b"".join(name + value for name, value in ordered) + json_body


def is_genuine(secret: bytes, given: bytes, parameters: Sequence[Pair], json_body: bytes) -> bool:
    """Whether the signature *given* matches this call. A malformed signature does not."""
    if not _HEX.fullmatch(given):
        return False
    expected = _digest(secret, parameters, json_body)
    return hmac.compare_digest(expected, bytes.fromhex(given.decode()))


def sign(secret: bytes, parameters: Sequence[Pair], json_body: bytes) -> str:
    """The signature that the source would send with this call."""
    return _digest(secret, parameters, json_body).hex()


def _digest(secret: bytes, parameters: Sequence[Pair], json_body: bytes) -> bytes:
    return hmac.digest(secret, text_to_sign(parameters, json_body), "sha256")


def _decoded(part: bytes) -> bytes:
    return unquote_to_bytes(part.replace(b"+", b" "))
