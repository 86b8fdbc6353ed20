"""Zoho's signature of a webhook, computed over the raw bytes before anybody has parsed them.

The signed text is every parameter of the query and of a form, sorted by name, each as its name directly followed by
its decoded value, all without separators; then the body itself where it is JSON.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

HEADER = "x-zoho-webhook-signature"
Pair = tuple[bytes, bytes]

_HEX = re.compile(r"[0-9a-fA-F]{64}")


def pairs(encoded: bytes) -> list[Pair]:
    """The parameters of a query or form in the order they came, decoded to bytes; blank values are kept."""
    found = []
    for part in encoded.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            found.append((_decoded(name), _decoded(value)))
    return found


def text_to_sign(parameters: Sequence[Pair], json_body: bytes) -> bytes:
    """What the source has signed. *json_body* is empty where the body was a form."""
    ordered = sorted(parameters, key=lambda pair: pair[0])
    return b"".join(name + value for name, value in ordered) + json_body


def is_genuine(secret: str, given: str | None, parameters: Sequence[Pair], json_body: bytes) -> bool:
    """Whether *given* signs this call. No signature, and one that is not a signature at all, are a no."""
    if given is None or not _HEX.fullmatch(given):
        return False
    digest = hmac.new(secret.encode(), text_to_sign(parameters, json_body), hashlib.sha256).hexdigest()
    return hmac.compare_digest(digest, given.lower())


def _decoded(part: bytes) -> bytes:
    return unquote_to_bytes(part.replace(b"+", b" "))
