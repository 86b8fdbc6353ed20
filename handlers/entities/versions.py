"""The column `zoho_versions`: which keys of a record come from older versions, and which versions share its stamp."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType

import msgspec

from handlers.entities.fold import UNKNOWN_ARRIVAL, Tied, Version

_TIED = " tied"
"""The key of the versions that share the newest stamp. No payload has a key that begins with a blank."""

_WRITE = msgspec.json.Encoder(decimal_format="number", order="sorted").encode
"""Numbers exactly as they were sent, and keys in one order: equal versions are equal texts."""


def stored_versions(stamp: datetime, versions: Mapping[str, Version], tied: Mapping[str, Tied]) -> str | None:
    """The column's text: [stamp, digest and arrival] by key; None without older versions, the common case.

    Older revisions must still read it after a rollback: every value is a time and a text to them.
    """
    if not versions and not tied:
        return None
    column = {
        key: [
            changed.isoformat(),
            digest if arrived == UNKNOWN_ARRIVAL else f"{digest} {arrived.isoformat()}",
        ]
        for key, (changed, arrived, digest) in versions.items()
    }
    if tied:
        all_tied = {digest: [one.arrived.isoformat(), one.data] for digest, one in tied.items()}
        column[_TIED] = [stamp.isoformat(), _WRITE(all_tied).decode()]
    return json.dumps(column)


def read_versions(column: str | None) -> tuple[Mapping[str, Version], Mapping[str, Tied]]:
    """The versions by key, and the tied ones by digest, from the column's text."""
    if not column:
        return MappingProxyType({}), MappingProxyType({})
    stored = json.loads(column)
    tied: Mapping[str, Tied] = {}
    if _TIED in stored:
        all_tied = json.loads(stored.pop(_TIED)[1], parse_float=Decimal)
        tied = {
            digest: Tied(arrived=datetime.fromisoformat(arrived), data=data)
            for digest, (arrived, data) in all_tied.items()
        }
    return {key: _version(*parts) for key, parts in stored.items()}, tied


def _version(stamp: str, digest: str) -> Version:
    """A version; without an arrival if an older revision stored it."""
    digest, _, arrived = digest.partition(" ")
    at = datetime.fromisoformat(arrived) if arrived else UNKNOWN_ARRIVAL
    return datetime.fromisoformat(stamp), at, digest
