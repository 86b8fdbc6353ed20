"""Many versions of one record into one: newest wins, key by key, whatever order they arrive in. Pure.

A payload may be partial, so a newer version does not simply replace an older one: a key that it does not
mention keeps the value that the newest payload with that key gave it. The stored row is a pure function of
the folded record. Folding is commutative, associative and idempotent, and so replaying the whole history in
any order, any number of times, leaves the same row.

A version is (stamp, digest of the record): two versions with one stamp and different content are ordered by
content, arbitrarily but always in the same way, and one of them wins as a whole.
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
    """What is known about a row: the record as folded so far."""

    stamp: datetime
    """Of the newest version in it."""
    deleted_at: datetime | None
    data: Data
    versions: Mapping[str, Version]
    """The keys whose value comes from an older version than the newest."""


class RecordChange(NamedTuple):
    """One version of a record, as an event brought it."""

    data: Data
    stamp: datetime
    deleted: bool = False


class Folded(NamedTuple):
    """The record after some changes."""

    stamp: datetime
    deleted_at: datetime | None
    data: Data
    changed: bool
    """Something differs from what is stored."""
    newest: int | None
    """Position of the change that is the whole record, if one is."""
    owned: tuple[Set[str], ...]
    """For each change the keys whose value, as it stands now, is the one it gave."""
    versions: Mapping[str, Version] = MappingProxyType({})
    """The keys whose value comes from an older version than the newest."""


def fold(stored: Stored | None, changes: Sequence[RecordChange]) -> Folded:
    """The record after *changes*, in whatever order they are given."""
    left = _undominated(changes)
    if len(left) == len(changes):
        return _fold(stored, changes)
    folded = _fold(stored, [changes[at] for at in left])
    owned = dict(zip(left, folded.owned, strict=True))
    return folded._replace(
        newest=left[folded.newest] if folded.newest is not None else None,
        owned=tuple(owned.get(at, frozenset()) for at in range(len(changes))),
    )


def _undominated(changes: Sequence[RecordChange]) -> list[int]:
    """Positions of the changes that can have a say: the others mention nothing that the last one does not.

    Nor does a deletion before it. Of a record with a hundred versions in one batch only the last needs a digest then,
    which costs more than reading it.
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
        return alone(changes[0])
    if stored is not None and len(changes) == 1 and _again(stored, changes[0]):
        return _unchanged(stored)
    before = _owners(stored)
    versions = [(change.stamp, digest(change.data)) for change in changes]
    owners = dict(before)
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
        changed=stored is None or owners != before or deleted_at != stored.deleted_at,
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
    """Which version each key of the stored record comes from."""
    if stored is None:
        return {}
    newest_part = {key: value for key, value in stored.data.items() if key not in stored.versions}
    top = (stored.stamp, digest(newest_part))
    return {key: stored.versions.get(key, top) for key in stored.data}


def _newest_values(
    stored: Stored | None,
    changes: Sequence[RecordChange],
    versions: Sequence[Version],
    owners: dict[str, Version],
) -> Data:
    """The newest value of each key; *owners* learns which version it comes from."""
    data: Data = dict(stored.data) if stored is not None else {}
    for change, version in zip(changes, versions, strict=True):
        for key, value in change.data.items():
            if key not in owners or owners[key] < version:
                owners[key] = version
                data[key] = value
    return data


def _again(stored: Stored, change: RecordChange) -> bool:
    """Whether a change is what is stored already, delivered once more."""
    return (
        change.stamp == stored.stamp
        and not stored.versions
        and (not change.deleted or stored.deleted_at == change.stamp)
        and change.data == stored.data
        and _alike(change.data, stored.data)
    )


def _alike(one: Any, other: Any) -> bool:
    """Whether equal values are the same: Python takes `true` for 1, and a digest does not."""
    match one:
        case dict():
            return all(_alike(value, other[key]) for key, value in one.items())
        case list():
            return all(map(_alike, one, other))
        case _:
            return isinstance(one, bool) == isinstance(other, bool)


def alone(change: RecordChange, *, deleted_at: datetime | None = None) -> Folded:
    """A change that is the whole record: nothing older has a key that it does not mention."""
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
    """When the record was deleted, unless a newer version says that it is there.

    The body of a delete is the last record, and so carries the stamp of the last change: at one stamp the
    delete wins.
    """
    deletions = [change.stamp for change in changes if change.deleted]
    if stored is not None and stored.deleted_at is not None:
        deletions.append(stored.deleted_at)
    last = max(deletions, default=None)
    return last if last is not None and last >= newest else None


def digest(data: Data) -> str:
    """A short name for a record's content, the same for equal content however it was printed."""
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
    """A short name for the set of a record's keys, to see whether one version mentions all that another
    does."""
    return _shape(tuple(data))


@lru_cache(maxsize=4096)
def _shape(keys: tuple[str, ...]) -> str:
    return blake2b("\n".join(sorted(keys)).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
