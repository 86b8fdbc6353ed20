"""What is known of the logs of a release: how far each was read, the errors before it, and the new ones. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

KNOWN_MAX = 1000
"""Kinds of errors of the day before that are kept; the state is in the ledger and written at each look."""
SHOWN_MAX = 50
"""New kinds of errors that are kept, shown and paged. One cause often has several."""
_DIGITS = re.compile(r"\d+")
_TIME = re.compile(
    r"^\W{0,3}(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,]\d+)?\s?(?:(Z)|([+-])(\d\d):?(\d\d))?"
)


@dataclass(frozen=True, kw_only=True)
class NewSignature:
    """A kind of error that the logs have since the deploy, and had not in the 24 h before."""

    fingerprint: str
    """The line with ids, numbers and quoted values masked."""
    count: int
    where: tuple[str, ...]
    """The logs that have it: host and unit, or host and file."""
    first_seen: datetime
    """The database's time of the look that found it."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> NewSignature:
        """From what `LogState.as_json` has made of it."""
        return cls(
            fingerprint=stored["fingerprint"],
            count=stored["count"],
            where=tuple(stored["where"]),
            first_seen=datetime.fromisoformat(stored["first_seen"]),
        )


@dataclass(frozen=True, kw_only=True)
class Line:
    """Equal errors in one log: their fingerprint, how many, and the name of the log."""

    fingerprint: str
    count: int
    where: str


@dataclass(frozen=True, kw_only=True)
class LogState:
    """The state between two looks. It begins with the time of the deploy alone."""

    deployed_at: datetime
    """The database's time. What a log had before it is known."""
    positions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """How far each log was read, by its name. One that is missing here was never read."""
    known: frozenset[str] = frozenset()
    """Short digests of the errors before the deploy."""
    seen: tuple[NewSignature, ...] = ()
    """The new ones of all looks, in the order in which they were found."""

    def after(
        self,
        before: Iterable[Line],
        found: Iterable[Line],
        positions: Mapping[str, Mapping[str, Any]],
        at: datetime,
    ) -> tuple[LogState, list[NewSignature], list[str]]:
        """The state after one look, what is new for the first time, and what had no room."""
        known = set(self.known)
        problems: list[str] = []
        for line in before:
            if len(known) < KNOWN_MAX:
                known.add(digest(line.fingerprint))
            elif not problems:
                problems.append(
                    f"logs: more than {KNOWN_MAX} kinds of errors before the deploy, so some look new"
                )
        seen = {digest(signature.fingerprint): signature for signature in self.seen}
        new: list[str] = []
        for line in found:
            key = digest(line.fingerprint)
            if key in known:
                continue
            if key in seen:
                seen[key] = _counted(seen[key], line)
            elif len(seen) < SHOWN_MAX:
                new.append(key)
                seen[key] = NewSignature(
                    fingerprint=line.fingerprint, count=line.count, where=(line.where,), first_seen=at
                )
            else:
                problems.append(f"logs: more than {SHOWN_MAX} new kinds of errors; the others are not shown")
        state = replace(
            self,
            positions={**self.positions, **positions},
            known=frozenset(known),
            seen=tuple(seen.values()),
        )
        return state, [seen[key] for key in new], sorted(set(problems))

    def as_json(self) -> dict[str, Any]:
        """The state as JSON values."""
        return {
            "deployed_at": self.deployed_at.isoformat(),
            "positions": {where: dict(position) for where, position in self.positions.items()},
            "known": sorted(self.known),
            "seen": [
                {
                    "fingerprint": signature.fingerprint,
                    "count": signature.count,
                    "where": list(signature.where),
                    "first_seen": signature.first_seen.isoformat(),
                }
                for signature in self.seen
            ],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> LogState:
        """From what `as_json` has made of it."""
        return cls(
            deployed_at=datetime.fromisoformat(stored["deployed_at"]),
            positions=stored.get("positions") or {},
            known=frozenset(stored.get("known") or ()),
            seen=tuple(NewSignature.from_json(signature) for signature in stored.get("seen") or ()),
        )


def digest(fingerprint: str) -> str:
    """Ten hex digits for a kind of error. Digits within words are no difference: `worker7` is `worker12`."""
    return hashlib.blake2b(_DIGITS.sub("0", fingerprint).encode(), digest_size=5).hexdigest()


def time_of(line: str, zone: timezone) -> float | None:
    """The Unix time at the start of a line; None when it has none. A time without a zone is in the host's *zone*."""
    found = _TIME.match(line)
    if found is None:
        return None
    *numbers, utc, sign, hours, minutes = found.groups()
    if utc or sign:
        ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        zone = timezone(-ahead if sign == "-" else ahead)
    try:
        year, month, day, hour, minute, second = map(int, numbers)
        return datetime(year, month, day, hour, minute, second, tzinfo=zone).timestamp()
    except ValueError:
        return None


def _counted(signature: NewSignature, line: Line) -> NewSignature:
    where = signature.where if line.where in signature.where else (*signature.where, line.where)
    return replace(signature, count=signature.count + line.count, where=where)
