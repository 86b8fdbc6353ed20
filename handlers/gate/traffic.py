"""What is known of the traffic: one row for each item, a person's holds, the upstream, and what the gate itself held.

Rows are filled by events that may be told in any order, once or many times. Stored rows give the same events back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

INTAKE = "intake"
UNWATCHED = "unwatched"
"""Nobody has looked since a while: an outage or a hold may have begun and ended meanwhile."""
PRIORITY = 5
"""The usual one. Workers take what has a smaller one first."""
STARTING, STARTED = "starting", "started"
"""The released workers are being started, and they run: before that nobody can take anything."""
ORDER = (
    "upstream",
    "held",
    "released",
    INTAKE,
    UNWATCHED,
    STARTING,
    STARTED,
    "queued",
    "arrive",
    "attempt_failed",
    "instant",
    "back",
    "taken",
    "waits",
    "woken",
    "done",
    "dead",
    "gone",
)
"""The kinds of event, in the order in which events of one moment count."""
_RANK = {kind: rank for rank, kind in enumerate(ORDER)}


class Fact(NamedTuple):
    """One thing that happened."""

    at: float
    rank: int
    item: str
    """The id of the item; empty if it concerns none."""
    told: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return ORDER[self.rank]

    @property
    def order(self) -> tuple[float, int, str, str]:
        """By time, then by kind, then by item: a total order, so that nothing depends on the order of telling."""
        return self.at, self.rank, self.item, repr(sorted(self.told.items()))


@dataclass(slots=True)
class Item:
    """One event of the queue, from coming in to its end. Times are seconds since the switch."""

    id: str
    entity: str = ""
    key: str = ""
    kind: str = "live"
    priority: int = PRIORITY
    came_in: float | None = None
    admitted: float | None = None
    former: bool = False
    """Whether a worker of the former revision took it."""
    attempts: tuple[tuple[float, bool, str | None, float | None], ...] = ()
    """Attempts that failed: when, whether no retry cures the error, its fingerprint, and when the next one is due."""
    waits: tuple[tuple[float, str], ...] = ()
    """When it began to wait, and for which parent."""
    woken: tuple[float, ...] = ()
    backs: tuple[float, ...] = ()
    """When a worker gave it back, so that it waits for one again."""
    retaken: tuple[float, ...] = ()
    """When a worker took it after that."""
    instant: tuple[float, str] | None = None
    """When it met an error that the environment names as a breach, and that error."""
    ended: float | None = None
    dead: bool = False
    gone: bool = False
    """It was taken out of the queue, by nobody of ours: it has no outcome."""
    hard: bool = False
    fingerprint: str | None = None

    def events(self) -> Iterator[dict[str, Any]]:
        """The row as events."""
        about: dict[str, Any] = {"id": self.id, "seg": self.entity, "key": self.key, "kind": self.kind}
        about |= {} if self.priority == PRIORITY else {"priority": self.priority}
        if self.came_in is not None and (self.admitted is None or self.came_in < self.admitted):
            yield {"ev": "queued", "t": self.came_in, **about}
        if self.admitted is not None:
            former = {"revision": "former"} if self.former else {}
            yield {"ev": "arrive", "t": self.admitted, "arrived": self.came_in, **about, **former}
        for at, hard, fingerprint, due in self.attempts:
            why = {"hard": hard, "fingerprint": fingerprint, "due": due}
            yield {"ev": "attempt_failed", "t": at, "id": self.id, **why}
        if self.instant is not None:
            yield {"ev": "instant", "t": self.instant[0], "id": self.id, "error": self.instant[1]}
        for at, parent in self.waits:
            yield {"ev": "waits", "t": at, "id": self.id, "parent": parent}
        for kind, times in (("woken", self.woken), ("back", self.backs), ("taken", self.retaken)):
            for at in times:
                yield {"ev": kind, "t": at, "id": self.id}
        if self.ended is not None and self.gone:
            yield {"ev": "gone", "t": self.ended, "id": self.id}
        elif self.ended is not None and self.dead:
            why = {"hard": self.hard, "fingerprint": self.fingerprint}
            yield {"ev": "dead", "t": self.ended, "id": self.id, **why}
        elif self.ended is not None:
            yield {"ev": "done", "t": self.ended, "id": self.id}


@dataclass
class Traffic:
    """All rows, and what of them has not been taken yet."""

    items: dict[str, Item] = field(default_factory=dict)
    others: dict[tuple[float, int, str, str], Fact] = field(default_factory=dict)
    """What concerns no item: upstream, holds, intake, times without a look."""
    _new: list[Fact] = field(default_factory=list)

    def observe(self, told: Mapping[str, Any]) -> None:
        """Note one event. Kinds that are unknown, and what is known already, are ignored."""
        rank = _RANK.get(str(told.get("ev")))
        if rank is None:
            return
        fact = Fact(float(told["t"]), rank, str(told.get("id", "")), told)
        if fact.item:
            if self._is_new(fact):
                self._new.append(fact)
        elif fact.order not in self.others:
            self.others[fact.order] = fact
            self._new.append(fact)

    def take(self, now: float) -> list[Fact]:
        """What has happened until *now* and was not taken before, in order."""
        taken = sorted((fact for fact in self._new if _until(fact, now)), key=lambda fact: fact.order)
        self._new = [fact for fact in self._new if not _until(fact, now)]
        return taken

    def until(self, now: float) -> list[Fact]:
        """Everything that has happened until *now*, from the rows, in order."""
        facts = [*self.others.values(), *(fact for item in self.items.values() for fact in _facts(item))]
        return sorted((fact for fact in facts if _until(fact, now)), key=lambda fact: fact.order)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Everything as events, to be stored and observed again."""
        yield from (dict(fact.told) for fact in self.others.values())
        for item in self.items.values():
            yield from item.events()

    def _is_new(self, fact: Fact) -> bool:
        item = self.items.get(fact.item)
        if item is None:
            item = self.items[fact.item] = Item(fact.item)
        return _comes(item, fact) if fact.kind in {"queued", "arrive"} else _happens(item, fact)


def _until(fact: Fact, now: float) -> bool:
    # The quotas that a look sets hold from then on: the look itself does not see them.
    return fact.at < now or (fact.at == now and fact.kind != INTAKE)


def _facts(item: Item) -> Iterator[Fact]:
    return (Fact(told["t"], _RANK[told["ev"]], item.id, told) for told in item.events())


def _comes(item: Item, fact: Fact) -> bool:
    told, queued = fact.told, fact.kind == "queued"
    if (item.came_in if queued else item.admitted) is not None:
        return False
    item.entity, item.key, item.kind = str(told["seg"]), str(told["key"]), str(told.get("kind", "live"))
    item.priority = int(told.get("priority", PRIORITY))
    if queued:
        item.came_in = fact.at
        return True
    came_in = told.get("arrived")
    item.admitted, item.former = fact.at, told.get("revision") == "former"
    if item.came_in is None:
        item.came_in = fact.at if came_in is None else float(came_in)
    return True


def _happens(item: Item, fact: Fact) -> bool:
    told, at = fact.told, fact.at
    match fact.kind:
        case "attempt_failed":
            attempt = (at, bool(told.get("hard")), told.get("fingerprint"), told.get("due"))
            new, item.attempts = attempt not in item.attempts, _with(item.attempts, attempt)
        case "waits":
            wait = (at, str(told.get("parent", "")))
            new, item.waits = wait not in item.waits, _with(item.waits, wait)
        case "woken":
            new, item.woken = at not in item.woken, _with(item.woken, at)
        case "back":
            new, item.backs = at not in item.backs, _with(item.backs, at)
        case "taken":
            new, item.retaken = at not in item.retaken, _with(item.retaken, at)
        case "instant":
            new = item.instant is None
            item.instant = item.instant or (at, str(told.get("error", "")))
        case _:
            new = item.ended is None
            if new:
                item.ended, item.dead, item.gone = at, fact.kind == "dead", fact.kind == "gone"
                item.hard, item.fingerprint = bool(told.get("hard")), told.get("fingerprint")
    return new


def _with(known: tuple[T, ...], value: T) -> tuple[T, ...]:
    return known if value in known else (*known, value)
