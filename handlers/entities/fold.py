"""Merging many versions of one record: the newest value of each key wins, in any order of arrival. Pure.

A payload may be partial, so a newer version does not simply replace an older one: a key that it does not
contain keeps the value of the newest payload with that key. The stored row is a pure function of
the folded record. Folding is commutative, associative and idempotent: replaying the whole history in any
order, any number of times, gives the same row.

A version is (stamp, first arrival, digest of the record). The source's stamps have a grain of a second. Of two
versions with one stamp, the one wins that first arrived later, in whatever order they are applied. A second delivery
of the other one changes nothing: all versions with the newest stamp are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from handlers.entities.digest import digest
from handlers.entities.spec import Data

Version = tuple[datetime, datetime, str]

UNKNOWN_ARRIVAL = datetime.min.replace(tzinfo=UTC)
"""The arrival of a version that an older revision stored: one with the same stamp came later."""


class Tied(NamedTuple):
    """One of several versions that share the newest stamp."""

    arrived: datetime
    data: Data


class Stored(NamedTuple):
    """The stored state of a row: the record as folded so far."""

    stamp: datetime
    """The stamp of its newest version."""
    deleted_at: datetime | None
    data: Data
    versions: Mapping[str, Version]
    """The keys whose value comes from an older version than the newest."""
    arrived: datetime = UNKNOWN_ARRIVAL
    """When the newest version first arrived."""
    tied: Mapping[str, Tied] = MappingProxyType({})
    """The versions with the newest stamp by their digest, if there are several."""


class RecordChange(NamedTuple):
    """One version of a record, from one event."""

    data: Data
    stamp: datetime
    deleted: bool = False
    arrived: datetime = UNKNOWN_ARRIVAL
    """When its event arrived."""


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
    arrived: datetime = UNKNOWN_ARRIVAL
    tied: Mapping[str, Tied] = MappingProxyType({})


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
    digests = [digest(change.data) for change in changes]
    stamp = max([change.stamp for change in changes] + ([stored.stamp] if stored is not None else []))
    tied = _tied(stored, changes, digests, stamp)
    versions = [
        (change.stamp, tied[own].arrived if change.stamp == stamp else change.arrived, own)
        for change, own in zip(changes, digests, strict=True)
    ]
    owners_before = _owners(stored)
    data: Data = dict(stored.data) if stored is not None else {}
    # The order of tied versions may have changed: they give their keys anew.
    keys = {key for one in tied.values() for key in one.data}
    owners = {key: owner for key, owner in owners_before.items() if key not in keys}
    for own, one in tied.items():
        _give(one.data, (stamp, one.arrived, own), data, owners)
    for change, version in zip(changes, versions, strict=True):
        _give(change.data, version, data, owners)
    newest = max(owners.values())
    deleted_at = _deletion(stored, changes, newest[0])
    whole = next(
        (at for at, version in enumerate(versions) if all(owner == version for owner in owners.values())),
        None,
    )
    if len(tied) == 1:
        tied = {}
    return Folded(
        stamp=newest[0],
        arrived=newest[1],
        deleted_at=deleted_at,
        data=data,
        versions={key: version for key, version in owners.items() if version != newest},
        tied=tied,
        changed=stored is None
        or owners != owners_before
        or deleted_at != stored.deleted_at
        or tied != stored.tied,
        newest=whole,
        owned=tuple(
            frozenset(key for key in change.data if owners[key] == version)
            for change, version in zip(changes, versions, strict=True)
        ),
    )


def _unchanged(stored: Stored) -> Folded:
    return Folded(
        stamp=stored.stamp,
        arrived=stored.arrived,
        deleted_at=stored.deleted_at,
        data=stored.data,
        changed=False,
        newest=0,
        owned=(stored.data.keys(),),
    )


def _tied(
    stored: Stored | None, changes: Sequence[RecordChange], digests: Sequence[str], stamp: datetime
) -> Mapping[str, Tied]:
    """The versions with the newest *stamp* by their digest, each with its first arrival."""
    tied = dict(_ties_of(stored)) if stored is not None and stored.stamp == stamp else {}
    for change, own in zip(changes, digests, strict=True):
        if change.stamp == stamp and (own not in tied or change.arrived < tied[own].arrived):
            tied[own] = Tied(arrived=change.arrived, data=change.data)
    return tied


def _ties_of(stored: Stored) -> Mapping[str, Tied]:
    """The stored versions with the newest stamp: mostly one, which owns every key that it ever had."""
    if stored.tied:
        return stored.tied
    data = {key: value for key, value in stored.data.items() if key not in stored.versions}
    return {digest(data): Tied(arrived=stored.arrived, data=data)}


def _owners(stored: Stored | None) -> dict[str, Version]:
    """The version that each key of the stored record comes from."""
    if stored is None:
        return {}
    newest_part = {key: value for key, value in stored.data.items() if key not in stored.versions}
    if stored.tied:
        arrived, own = max((one.arrived, own) for own, one in stored.tied.items())
    else:
        arrived, own = stored.arrived, digest(newest_part)
    newest_version = (stored.stamp, arrived, own)
    return {key: stored.versions.get(key, newest_version) for key in stored.data}


def _give(given: Data, version: Version, data: Data, owners: dict[str, Version]) -> None:
    """Put the values of one version into *data*, for the keys of which no newer version is there."""
    stamp, _, own = version
    for key, value in given.items():
        owner = owners.get(key)
        if owner is not None and (owner[0], owner[2]) == (stamp, own):
            owners[key] = min(owner, version)
        elif owner is None or owner < version:
            owners[key] = version
            data[key] = value


def _is_redelivery(stored: Stored, change: RecordChange) -> bool:
    """Whether a change equals the stored state: a second delivery."""
    return (
        change.stamp == stored.stamp
        and change.arrived >= stored.arrived
        and not stored.versions
        and not stored.tied
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
        arrived=change.arrived,
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
