"""Rate limiting: a token bucket for each source address."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

_SOURCES_MAX = 10_000
"""Sources in memory; the least recently used one is dropped first."""
_BURST_SECONDS = 10.0
"""The burst: a source may send at once as many calls as its rate allows in this time."""


@dataclass(kw_only=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimit:
    """Limits the calls of each source; *per_minute* 0 means no limit."""

    def __init__(self, per_minute: int) -> None:
        self._per_second = per_minute / 60
        self._tokens_max = max(1.0, self._per_second * _BURST_SECONDS)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_seconds(self, source: str, now: float) -> int:
        """Take one token from the bucket of *source*: 0 if there was one, otherwise the seconds until the next."""
        if not self._per_second:
            return 0
        bucket = self._buckets.setdefault(source, _Bucket(tokens=self._tokens_max, filled_at=now))
        self._buckets.move_to_end(source)
        if len(self._buckets) > _SOURCES_MAX:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._tokens_max, bucket.tokens + (now - bucket.filled_at) * self._per_second)
        bucket.filled_at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0
        return max(1, math.ceil((1 - bucket.tokens) / self._per_second))


@lru_cache(maxsize=_SOURCES_MAX)
def address_of(host: str | None) -> str | None:
    """A normalized IP address, or None if invalid: behind a proxy it comes from a header of the client."""
    try:
        return str(ipaddress.ip_address((host or "").partition("%")[0]))
    except ValueError:
        return None


@lru_cache(maxsize=_SOURCES_MAX)
def source_of(address: str | None) -> str:
    """The source that a call counts for. An IPv6 /64 network is one source: a client can use all its addresses."""
    if address is None:
        return "unknown"
    parsed = ipaddress.ip_address(address)
    return address if parsed.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
