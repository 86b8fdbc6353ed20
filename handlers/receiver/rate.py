"""How many calls one source may make: a bucket for each address, which fills by time."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

_SOURCES_MAX = 10_000
"""Sources that are remembered; the one that has been quiet longest is forgotten first."""
_BURST_SECONDS = 10.0
"""A source may send at once what it is allowed in this time."""


@dataclass(kw_only=True)
class _Bucket:
    left: float
    at: float


class Rate:
    """Counts down for each source. *per_minute* 0 limits nobody."""

    def __init__(self, per_minute: int) -> None:
        self._per_second = per_minute / 60
        self._most = max(1.0, self._per_second * _BURST_SECONDS)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_seconds(self, source: str, now: float) -> int:
        """Take one call from *source*'s bucket; 0 when there was one, else how long until there is."""
        if not self._per_second:
            return 0
        bucket = self._buckets.setdefault(source, _Bucket(left=self._most, at=now))
        self._buckets.move_to_end(source)
        if len(self._buckets) > _SOURCES_MAX:
            self._buckets.popitem(last=False)
        bucket.left = min(self._most, bucket.left + (now - bucket.at) * self._per_second)
        bucket.at = now
        if bucket.left >= 1:
            bucket.left -= 1
            return 0
        return max(1, math.ceil((1 - bucket.left) / self._per_second))


@lru_cache(maxsize=_SOURCES_MAX)
def address_of(host: str | None) -> str | None:
    """An address as it is kept, None where it is none: behind a proxy a caller writes it."""
    try:
        return str(ipaddress.ip_address((host or "").partition("%")[0]))
    except ValueError:
        return None


@lru_cache(maxsize=_SOURCES_MAX)
def source_of(address: str | None) -> str:
    """Whom a call is counted for. A whole network of IPv6 is one source: it has addresses without end."""
    if address is None:
        return "unknown"
    found = ipaddress.ip_address(address)
    return address if found.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
