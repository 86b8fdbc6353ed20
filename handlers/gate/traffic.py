"""What is known of the traffic: one row for each item, a person's holds, the upstream, and what the gate itself held.

Rows are filled by events in any order, told once or many times. They can be stored, and give the same events back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ORDER = (
    "upstream",
    "held",
    "released",
    "intake",
    "queued",
    "arrive",
    "attempt_failed",
    "waits",
    "woken",
    "done",
    "dead",
)
"""The kinds of event, in the order in which events of one moment count."""
_RANK = {kind: rank for rank, kind in enumerate(ORDER)}


class Fact(NamedTuple):
    """One thing that happened. Facts are compared by time, then by kind, then by item."""

    at: float
    rank: int
    item: str
    told: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return ORDER[self.rank]

    @property
    def order(self) -> tuple[float, int, str, str]:
        """A total order, so that nothing depends on the order of telling."""
        return self.at, self.rank, self.item, repr(sorted(self.told.items()))


@dataclass(slots=True)
class Item:
    """One event of the queue, from coming in to its end. Times are seconds since the switch."""

    id: str
    entity: str = ""
    key: str = ""
    kind: str = "live"
    came_in: float | None = None
    admitted: float | None = None
    former: bool = False
    attempts: list[tuple[float, bool, str | None]] = field(default_factory=list)
    """Attempts that failed: when, whether no retry cures the error, and its fingerprint."""
    waits: list[tuple[float, str]] = field(default_factory=list)
    woken: list[float] = field(default_factory=list)
    ended: float | None = None
    dead: bool = False
    hard: bool = False
    fingerprint: str | None = None

    def events(self) -> Iterator[dict[str, Any]]:
        """The row as events."""
        about = {"id": self.id, "seg": self.entity, "key": self.key, "kind": self.kind}
        if self.came_in is not None and (self.admitted is None or self.came_in < self.admitted):
            yield {"ev": "queued", "t": self.came_in, **about}
        if self.admitted is not None:
            former = {"revision": "former"} if self.former else {}
            yield {"ev": "arrive", "t": self.admitted, "arrived": self.came_in, **about, **former}
        for at, hard, fingerprint in self.attempts:
            yield {"ev": "attempt_failed", "t": at, "id": self.id, "hard": hard, "fingerprint": fingerprint}
        for at, parent in self.waits:
            yield {"ev": "waits", "t": at, "id": self.id, "parent": parent}
        for at in self.woken:
            yield {"ev": "woken", "t": at, "id": self.id}
        if self.ended is not None and self.dead:
            why = {"hard": self.hard, "fingerprint": self.fingerprint}
            yield {"ev": "dead", "t": self.ended, "id": self.id, **why}
        elif self.ended is not None:
            yield {"ev": "done", "t": self.ended, "id": self.id}


@dataclass
class Traffic:
    """All rows. `take` hands over what is new since the last time, in order."""

    items: dict[str, Item] = field(default_factory=dict)
    others: list[Fact] = field(default_factory=list)
    """What concerns no item: upstream, holds, intake."""
    _new: list[Fact] = field(default_factory=list)
    _taken_until: float = float("-inf")

    def observe(self, told: Mapping[str, Any]) -> None:
        """Note one event. Kinds that are not known, and what is known already, are ignored."""
        rank = _RANK.get(str(told.get("ev")))
        if rank is None:
            return
        fact = Fact(float(told["t"]), rank, str(told.get("id", "")), told)
        if "id" not in told:
            if fact.order not in {other.order for other in self.others if other.at == fact.at}:
                self.others.append(fact)
                self._new.append(fact)
        elif self._is_new(fact):
            self._new.append(fact)

    def _is_new(self, fact: Fact) -> bool:  # noqa: PLR0911
        item = self.items.get(fact.item)
        if item is None:
            item = self.items[fact.item] = Item(fact.item)
        told, at = fact.told, fact.at
        match fact.kind:
            case "queued":
                new = item.came_in is None
                item.came_in = at
                _describe(item, told)
                return new
            case "arrive":
                if item.admitted is not None:
                    return False
                came_in = told.get("arrived")
                item.admitted, item.former = at, told.get("revision") == "former"
                item.came_in = (
                    item.came_in if item.came_in is not None else at if came_in is None else float(came_in)
                )
                _describe(item, told)
                return True
            case "attempt_failed":
                return _append(item.attempts, (at, bool(told.get("hard")), told.get("fingerprint")))
            case "waits":
                return _append(item.waits, (at, str(told.get("parent", ""))))
            case "woken":
                return _append(item.woken, at)
        if item.ended is not None:
            return False
        item.ended, item.dead = at, fact.kind == "dead"
        item.hard, item.fingerprint = bool(told.get("hard")), told.get("fingerprint")
        return True

    def take(self) -> tuple[list[Fact], bool]:
        """The facts since the last call in order, and whether all must be read again because one came late."""
        new, self._new = self._new, []
        if new and min(fact.at for fact in new) < self._taken_until:
            new, again = self.all(), True
        else:
            again = False
        if new:
            self._taken_until = max(self._taken_until, *(fact.at for fact in new))
        return sorted(new, key=lambda fact: fact.order), again

    def all(self) -> list[Fact]:
        """Every fact, from the rows."""
        facts = list(self.others)
        for item in self.items.values():
            facts += [Fact(told["t"], _RANK[told["ev"]], item.id, told) for told in item.events()]
        return facts

    def rows(self) -> Iterable[dict[str, Any]]:
        """Everything as events, to be stored and observed again."""
        return (dict(fact.told) for fact in self.all())


def _describe(item: Item, told: Mapping[str, Any]) -> None:
    item.entity, item.key = str(told["seg"]), str(told["key"])
    item.kind = str(told.get("kind", "live"))


def _append(known: list[Any], value: Any) -> bool:
    if value in known:
        return False
    known.append(value)
    return True
