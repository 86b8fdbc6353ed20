"""Masking what looks like a secret in any text: passwords in addresses, and values assigned to telling names. Pure."""

from __future__ import annotations

import re

MASK = "***"
_IN_ADDRESS = re.compile(r"(?<=://)([^\s:/@]*):([^\s@]+)(?=@)")
_ASSIGNED = re.compile(
    r"(?i)\b([\w-]*(?:password|passwd|secret|token|api[_-]?key|authorization)[\"']?\s*[=:]\s*[\"']?)"
    r"(?:bearer\s+)?([^\s\"',;&]+)"
)


def mask(text: str) -> str:
    """*text* with everything masked that looks like a secret."""
    return _ASSIGNED.sub(rf"\1{MASK}", _IN_ADDRESS.sub(rf"\1:{MASK}", text))
