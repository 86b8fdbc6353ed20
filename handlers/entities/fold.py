"""Merging many versions of one record: the newest value of each key wins, in any order of arrival. Pure.

A payload may be partial, so a newer version does not simply replace an older one: a key that it does not
contain keeps the value of the newest payload with that key. The stored row is a pure function of
the folded record. Folding is commutative, associative and idempotent: replaying the whole history in any
order, any number of times, gives the same row.

A version is (stamp, digest of the record). Versions with equal stamps are ordered by their digest: arbitrary, but
deterministic, and one of them wins as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, NamedTuple

from handlers.entities.spec import Data

Version = tuple[datetime, str]


class Stored(NamedTuple):
    """The stored state of a row: the record as folded so far."""

    stamp: datetime
    """The stamp of its newest version."""
    deleted_at: datetime | None
    data: Data
    versions: Mapping[str, Version]
    """The keys whose value comes from an older version than the newest."""


class RecordChange(NamedTuple):
    """One version of a record, from one event."""

    data: Data
    stamp: datetime
    deleted: bool = False


class Folded(NamedTuple):
    """The record after some changes."""

    stamp: datetime
    deleted_at: datetime | None
    data: Data
    changed: bool
    """It differs from the stored state."""
    newest: int | None
    """Position of the change that is the whole record, if one is."""
    owned: tuple[Set[str], ...]
    """For each change, the keys whose current value comes from it."""
    versions: Mapping[str, Version] = MappingProxyType({})
    """The keys whose value comes from an older version than the newest."""


def fold(stored: Stored | None, changes: Sequence[RecordChange]) -> Folded:
    """The record after *changes*, whose order does not matter."""
    kept = _effective(changes)
    if len(kept) == len(changes):
        return _fold(stored, changes)
    folded = _fold(stored, [changes[at] for at in kept])
    owned = dict(zip(kept, folded.owned, strict=True))
    return folded._replace(
        newest=kept[folded.newest] if folded.newest is not None else None,
        owned=tuple(owned.get(at, frozenset()) for at in range(len(changes))),
    )


def _effective(changes: Sequence[RecordChange]) -> list[int]:
    """Positions of the changes that can affect the result: the others have no key that the last one lacks.

    An earlier deletion has no effect either. Of a hundred versions of a record in one batch, only the last then needs a
    digest, which costs more than parsing it.
    """
    if len(changes) == 1:
        return [0]
    last = max(changes, key=lambda change: change.stamp)
    return [
        at
        for at, change in enumerate(changes)
        if change.stamp == last.stamp or not change.data.keys() <= last.data.keys()
    ]


def _fold(stored: Stored | None, changes: Sequence[RecordChange]) -> Folded:
    if stored is None and len(changes) == 1:
        return replace_whole(changes[0])
    if stored is not None and len(changes) == 1 and _is_redelivery(stored, changes[0]):
        return _unchanged(stored)
    owners_before = _owners(stored)
    versions = [(change.stamp, digest(change.data)) for change in changes]
    owners = dict(owners_before)
    data = _newest_values(stored, changes, versions, owners)
    newest = max(owners.values())
    deleted_at = _deletion(stored, changes, newest[0])
    whole = next(
        (at for at, version in enumerate(versions) if all(owner == version for owner in owners.values())),
        None,
    )
    return Folded(
        stamp=newest[0],
        deleted_at=deleted_at,
        data=data,
        versions={key: version for key, version in owners.items() if version != newest},
        changed=stored is None or owners != owners_before or deleted_at != stored.deleted_at,
        newest=whole,
        owned=tuple(
            frozenset(key for key in change.data if owners[key] == version)
            for change, version in zip(changes, versions, strict=True)
        ),
    )


def _unchanged(stored: Stored) -> Folded:
    return Folded(
        stamp=stored.stamp,
        deleted_at=stored.deleted_at,
        data=stored.data,
        changed=False,
        newest=0,
        owned=(stored.data.keys(),),
    )


def _owners(stored: Stored | None) -> dict[str, Version]:
    """The version that each key of the stored record comes from."""
    if stored is None:
        return {}
    newest_part = {key: value for key, value in stored.data.items() if key not in stored.versions}
    newest_version = (stored.stamp, digest(newest_part))
    return {key: stored.versions.get(key, newest_version) for key in stored.data}


def _newest_values(
    stored: Stored | None,
    changes: Sequence[RecordChange],
    versions: Sequence[Version],
    owners: dict[str, Version],
) -> Data:
    """The newest value of each key; updates *owners* with its version."""
    data: Data = dict(stored.data) if stored is not None else {}
    for change, version in zip(changes, versions, strict=True):
        for key, value in change.data.items():
            if key not in owners or owners[key] < version:
                owners[key] = version
                data[key] = value
    return data


def _is_redelivery(stored: Stored, change: RecordChange) -> bool:
    """Whether a change equals the stored state: a second delivery."""
    return (
        change.stamp == stored.stamp
        and not stored.versions
        and (not change.deleted or stored.deleted_at == change.stamp)
        and change.data == stored.data
        and _same_types(change.data, stored.data)
    )


def _same_types(value: Any, other_value: Any) -> bool:
    """Whether equal values have equal types: in Python True == 1, but their digests differ."""
    match value:
        case dict():
            return all(_same_types(inner, other_value[key]) for key, inner in value.items())
        case list():
            return all(map(_same_types, value, other_value))
        case _:
            return isinstance(value, bool) == isinstance(other_value, bool)


def replace_whole(change: RecordChange, *, deleted_at: datetime | None = None) -> Folded:
    """The folded record of a change that replaces everything: no older version has a key that it lacks."""
    if change.deleted:
        deleted_at = max(change.stamp, deleted_at or change.stamp)
    return Folded(
        stamp=change.stamp,
        deleted_at=deleted_at if deleted_at is not None and deleted_at >= change.stamp else None,
        data=change.data,
        changed=True,
        newest=0,
        owned=(change.data.keys(),),
    )


def _deletion(stored: Stored | None, changes: Iterable[RecordChange], newest: datetime) -> datetime | None:
    """The time of the deletion; None without one, or if a newer version restored the record.

    The body of a delete is the last record, with the stamp of its last change: at equal stamps the delete wins.
    """
    deletions = [change.stamp for change in changes if change.deleted]
    if stored is not None and stored.deleted_at is not None:
        deletions.append(stored.deleted_at)
    last = max(deletions, default=None)
    return last if last is not None and last >= newest else None


def digest(data: Data) -> str:
    """A digest of a record's content, independent of its JSON formatting."""
    return blake2b(_canonical(data).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _canonical(value: Any) -> str:
    match value:
        case dict():
            return (
                "{" + ",".join(f"{json.dumps(key)}:{_canonical(value[key])}" for key in sorted(value)) + "}"
            )
        case list():
            return "[" + ",".join(map(_canonical, value)) + "]"
        case bool() | None | str():
            return json.dumps(value)
        case _:
            return str((Decimal(value) + 0).normalize())


def shape(data: Data) -> str:
    """A digest of the record's set of keys, to compare the keys of two versions."""
    return _shape(tuple(data))


@lru_cache(maxsize=4096)
def _shape(keys: tuple[str, ...]) -> str:
    return blake2b("\n".join(sorted(keys)).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
