"""The 24 hours before the release, by type: what is held against the new revision is only what is new."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from handlers.gate.parameters import POOLED

Z_95 = 1.6449
"""The one-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class TypeBefore:
    """One type under the former revision. A unit is a record, once in ten minutes."""

    units: int = 0
    ok: float = 1.0
    fingerprints: Mapping[str, float] = field(default_factory=dict)
    """The errors it failed of, as masked text, and their share of the units."""
    waited: float = 0.0
    """The share of the units that waited for a parent."""
    latency_s: tuple[float, float, float] | None = None
    """p50, p90 and p99 of admission to end."""


@dataclass(frozen=True, kw_only=True)
class DayBefore:
    """Frozen in the plan. An empty one claims that nothing failed."""

    units: int = 0
    ok: float = 1.0
    types: Mapping[str, TypeBefore] = field(default_factory=dict)
    wait_p99_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """For the ledger."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """From the ledger. A key of another version is ignored."""
        types = {}
        for name, day in stored.get("types", {}).items():
            values = {key: day[key] for key in ("units", "ok", "fingerprints", "waited") if key in day}
            if latency := day.get("latency_s"):
                values["latency_s"] = tuple(latency)
            types[name] = TypeBefore(**values)
        values = {key: stored[key] for key in ("units", "ok", "wait_p99_s") if key in stored}
        return cls(types=types, **values)

    def of(self, stream: str) -> TypeBefore:
        """The day of one stream. Where only the whole was counted, it stands for each type."""
        if stream != POOLED and self.types:
            return self.types.get(stream, TypeBefore())
        units = sum(each.units for each in self.types.values())
        waited = sum(each.units * each.waited for each in self.types.values()) / units if units else 0.0
        return TypeBefore(units=self.units or units, ok=self.ok, waited=waited)

    def knows(self, entity: str, fingerprint: str | None) -> bool:
        """Whether the type failed of this error before. An error without a fingerprint is new."""
        before = self.types.get(entity)
        return (
            fingerprint is not None and before is not None and before.fingerprints.get(fingerprint, 0.0) > 0
        )

    def failing_bound(self, stream: str, healthy: float) -> float:
        """Q: the upper bound of the failing share before, and 0 if the stream met the bar *healthy*."""
        before = self.of(stream)
        failing = 1.0 - before.ok
        return 0.0 if failing <= 1.0 - healthy + 1e-9 else wilson_upper(failing, before.units)

    def has_fingerprints(self, stream: str) -> bool:
        """Whether errors of the day before are known for the stream."""
        if stream == POOLED:
            return any(each.fingerprints for each in self.types.values())
        return bool(self.of(stream).fingerprints)

    def p99(self, entity: str) -> float:
        """The age that one of a hundred completed items of the type exceeded; 0 if unknown."""
        latency = self.of(entity).latency_s
        return latency[2] if latency else 0.0


def wilson_lower(share: float, n: int, z: float = Z_95) -> float:
    """The lower end of Wilson's score interval: the smallest rate under which *share* of *n* is no surprise."""
    return 1.0 - wilson_upper(1.0 - share, n, z) if n > 0 else 0.0


def wilson_upper(share: float, n: int, z: float = Z_95) -> float:
    """The upper end of Wilson's score interval: the largest rate under which *share* of *n* is no surprise."""
    if n <= 0:
        return 1.0
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return min((share + z * z / (2 * n) + spread) / (1 + z * z / n), 1.0)
