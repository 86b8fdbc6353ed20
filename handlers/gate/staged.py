"""Which dead letters are sent back next: batches that grow while letters complete, and hopeless ones set aside. Pure.

The same arithmetic judges each type and, in it, each former error. Under odds of 3 its part of a batch may double; from
3 on it gets one letter at a time; from 20 on, as after two failures of two, its other letters stay dead letters.

New errors that would set aside a fifth of all letters are not left at that: these letters are tried one at a time until
the release is rolled back, or the odds or the number of letters have fallen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from handlers.gate.letters import Group, Letter, Replay, evidence, group_letters, most_common

MISSES_MAX = 200
_Key = tuple[str, ...]


class Stage(StrEnum):
    """How fast letters of one kind may be sent back."""

    GROW = "grow"
    SINGLE = "single"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class DrainLimits:
    """The numbers of the staged drain. The defaults are those of the sequential gate's hard track."""

    q: float = 0.05
    q_mid: float = 0.10
    single_from: float = 3.0
    """From these odds on, one letter at a time."""
    stop_from: float = 20.0
    """From these odds on, the others are set aside."""
    alpha: float = 0.01
    alpha_mid: float = 0.10
    pooled_share: float = 0.5
    track_share: float = 0.45
    types: int = 11
    """The number of entity types, which divide the risk that the pooled stream leaves."""
    failures_min: int = 3
    """Fewer failures than this never roll back."""
    aside_max: float = 0.20
    """New errors set aside at most this share of all letters."""
    instant_errors: tuple[str, ...] = ("greenlet_spawn",)
    """One letter with an error of this type or code, or that begins with these words, is a breach."""

    def __post_init__(self) -> None:
        if not 0 < self.q <= self.q_mid < 1:
            raise ValueError("the failure rates must be 0 < q <= q_mid < 1")
        if not 0 < self.single_from <= self.stop_from:
            raise ValueError("single_from must be above 0 and at most stop_from")

    def risk(self, *, pooled: bool) -> float:
        """The part of the risk that one stream has."""
        share = self.pooled_share if pooled else (1 - self.pooled_share) / max(self.types, 1)
        return share * self.track_share

    def stage(self, bad: int, good: int) -> Stage:
        """The stage of letters of which *bad* did not complete and *good* did."""
        value = evidence(bad, good, self.q)
        if value >= self.stop_from:
            return Stage.STOP
        return Stage.SINGLE if value >= self.single_from else Stage.GROW

    def as_json(self) -> dict[str, Any]:
        """For stored inputs."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """Letters that stay dead letters, and why."""

    entity: str
    letters: int
    error: str
    """What letters like them died of; empty if they were not finished in time, or need a parent."""
    reason: str


def stages(groups: Iterable[Group], limits: DrainLimits) -> dict[_Key, Stage]:
    """The stage of each type and, in it, of each former error.

    What the type had died of before does not stop the type, only the letters that had died of the same.
    """
    sums: dict[_Key, list[int]] = {}
    total = 0
    for group in groups:
        total += group.completed + group.again + group.open + group.left
        type_, error = _keys(group)
        for key, bad in ((type_, group.news), (error, group.again)):
            counts = sums.setdefault(key, [0, 0, 0, 0])
            for at, number in enumerate((bad, group.completed, group.against, group.left)):
                counts[at] += number
    found = {}
    for key, (bad, good, against, left) in sums.items():
        stage = limits.stage(bad, good)
        is_news = stage is Stage.STOP and limits.stage(against, good) is Stage.STOP
        found[key] = Stage.SINGLE if is_news and left > limits.aside_max * total else stage
    return found


class Rooms:
    """How many letters of each type and of each former error still fit into the next batch.

    The first batch is one letter of each type, because success of one type proves nothing about another.
    """

    def __init__(
        self, replays: Sequence[Replay], left: Sequence[Letter], limits: DrainLimits, factor: int
    ) -> None:
        self._factor = factor
        self._is_first = all(replay.batch == 0 for replay in replays)
        groups = group_letters(replays, left)
        self._stages = stages(groups, limits)
        self._open = {key for group in groups if group.open for key in _keys(group)}
        self._shares: dict[_Key, tuple[int, int]] = {}
        for replay in replays:
            for key in _keys(replay):
                batch, share = self._shares.get(key, (-1, 0))
                if replay.batch >= batch:
                    self._shares[key] = (replay.batch, share + 1 if replay.batch == batch else 1)
        self._taken: Counter[_Key] = Counter()
        self._missed: Counter[str] = Counter()

    def stops(self, letter: Letter) -> bool:
        """Whether letters like this one are set aside."""
        return any(self._stages[key] is Stage.STOP for key in _keys(letter))

    def grows(self, letter: Letter) -> bool:
        """Whether nothing speaks against letters like this one."""
        return all(self._stages[key] is Stage.GROW for key in _keys(letter))

    def fits(self, letter: Letter) -> bool:
        """Whether its type and its former error both have a place left."""
        return all(self._bound(key) > self._taken[key] for key in _keys(letter)) and (
            self._missed[letter.entity] < MISSES_MAX
        )

    def take(self, letter: Letter) -> None:
        """Take one place of its type and one of its former error."""
        self._taken.update(_keys(letter))

    def miss(self, letter: Letter) -> None:
        """Note that it cannot go yet. After many of them its type is left for the next batch."""
        self._missed[letter.entity] += 1

    def _bound(self, key: _Key) -> int:
        """The part of the next batch. It grows from the part of the newest batch in which these letters had one."""
        stage, share = self._stages[key], self._shares.get(key, (-1, 0))[1]
        if stage is Stage.STOP:
            return 0
        if stage is Stage.SINGLE or self._is_first or share == 0:
            return 1
        return share if key in self._open else share * self._factor


def set_aside(groups: Sequence[Group], limits: DrainLimits) -> tuple[SetAside, ...]:
    """The letters that stay dead letters so far, most letters first."""
    types: dict[str, list[Group]] = {}
    for group in groups:
        types.setdefault(group.entity, []).append(group)
    found_stages = stages(groups, limits)
    found = []
    for group in groups:
        if not group.left:
            continue
        type_, error = (found_stages[key] for key in _keys(group))
        if type_ is Stage.STOP:
            found.append(_with_its_type(group, types[group.entity]))
        elif error is Stage.STOP:
            found.append(_with_its_error(group))
        elif group.orphaned:
            reason = f"{group.entity}: needs a record whose own letters failed or are set aside"
            found.append(SetAside(entity=group.entity, letters=group.orphaned, error="parent", reason=reason))
    merged: Counter[tuple[str, str, str]] = Counter()
    for each in found:
        merged[each.entity, each.error, each.reason] += each.letters
    sums = (
        SetAside(entity=entity, letters=letters, error=error, reason=reason)
        for (entity, error, reason), letters in merged.items()
    )
    return tuple(sorted(sums, key=lambda each: (-each.letters, each.entity, each.reason)))


def _with_its_type(group: Group, others: Sequence[Group]) -> SetAside:
    news, tried = sum(each.news for each in others), sum(each.news + each.completed for each in others)
    errors: Counter[str] = Counter()
    for each in others:
        errors.update(dict(each.errors))
    common = most_common(errors)
    error = common[0][0] if common else ("stuck" if any(each.stuck for each in others) else "parent")
    what = {"stuck": "unfinished for too long", "parent": "a parent is missing"}.get(error, error)
    reason = f"{group.entity}: {news} of {tried} did not complete ({what or 'no error text'})"
    return SetAside(entity=group.entity, letters=group.left, error=error, reason=reason)


def _with_its_error(group: Group) -> SetAside:
    tried = group.again + group.completed
    reason = f"{group.entity}: {group.again} of {tried} with this error did not complete ({group.former})"
    return SetAside(entity=group.entity, letters=group.left, error=group.former, reason=reason)


def _keys(of: Letter | Replay | Group) -> tuple[_Key, _Key]:
    """Its type, and its former error in that type."""
    return (of.entity,), (of.entity, of.former)
