"""Who holds what: a person, the gate itself, an upstream that is away. And what nobody takes though it is free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.traffic import Fact, Item


@dataclass(frozen=True, slots=True)
class Untaken:
    """An item that is free and that no worker has taken."""

    entity: str
    key: str
    free: float


@dataclass
class Holds:
    """What concerns no single item, and the queue of what is not admitted."""

    parameters: Parameters
    by_person: dict[str, float] = field(default_factory=dict)
    """Since when a person holds a stream."""
    quotas: dict[str, int] = field(default_factory=dict)
    """What the gate itself lets through at present."""
    outages: list[tuple[float, float]] = field(default_factory=list)
    """When the upstream was away, as its own probe says. The end of the last one may be open."""
    stopped: float = 0.0
    """How long a person held everything."""
    queue: dict[str, Item] = field(default_factory=dict)
    _open_since: dict[str, float] = field(default_factory=dict)
    """Since when a stream is not held, or its quota is above zero."""
    _taken: dict[str, float] = field(default_factory=dict)
    """When something of a stream was taken last."""
    _newest: tuple[float, float] = (float("-inf"), 0.0)
    """Of what was taken, the one that came in last: when it came in, and when it was taken."""

    def read(self, fact: Fact, item: Item | None) -> None:
        """One fact."""
        told, at = fact.told, fact.at
        match fact.kind:
            case "held":
                self.by_person.setdefault(str(told["seg"]), at)
            case "released":
                since = self.by_person.pop(str(told["seg"]), None)
                if since is not None:
                    self._open_since[str(told["seg"])] = at
                    if told["seg"] == POOLED:
                        self.stopped += at - max(since, 0.0)
            case "upstream":
                self._upstream(at, up=bool(told.get("up")))
            case "intake":
                self._intake(at, {str(stream): int(quota) for stream, quota in told["quotas"].items()})
            case "queued" if item is not None and item.kind != "replay":
                self.queue[fact.item] = item
            case "arrive" if item is not None:
                self.queue.pop(fact.item, None)
                self._taken[POOLED] = self._taken[item.entity] = at
                came_in = item.came_in if item.came_in is not None else at
                self._newest = max(self._newest, (came_in, at))

    def _upstream(self, at: float, *, up: bool) -> None:
        away = bool(self.outages) and self.outages[-1][1] == float("inf")
        if up and away:
            self.outages[-1] = (self.outages[-1][0], at)
        elif not up and not away:
            self.outages.append((at, float("inf")))

    def _intake(self, at: float, quotas: dict[str, int]) -> None:
        for stream in self.quotas.keys() | quotas.keys():
            was, now = self.quotas.get(stream, 1), quotas.get(stream, 1)
            if now > 0 and (was == 0 or (stream in self.quotas) != (stream in quotas)):
                self._open_since[stream] = at
        self.quotas = quotas

    @property
    def upstream_away(self) -> bool:
        """Whether its probe says now that the upstream is away."""
        return bool(self.outages) and self.outages[-1][1] == float("inf")

    def watched(self, now: float) -> float:
        """How long the watch has lasted: not while a person held everything."""
        since = self.by_person.get(POOLED)
        return now - self.stopped - (now - max(since, 0.0) if since is not None else 0.0)

    def masked(self, block: int) -> bool:
        """Whether *block* lies within a confirmed outage or its margins."""
        p = self.parameters
        start, end = block * p.block_s, (block + 1) * p.block_s
        return any(
            start < away_until + p.outage_margin_s and end > away - p.outage_margin_s
            for away, away_until in self.outages
        )

    def untaken(self, now: float, age_s: float) -> Iterator[Untaken]:
        """What has been free for longer than *age_s*, while nothing is taken or later ones are; a record once."""
        if not self.queue or POOLED in self.by_person:
            return
        budget = dict(self.quotas)
        records = set()
        for item in sorted(self.queue.values(), key=lambda each: (each.came_in or 0.0, each.id)):
            scope = POOLED if POOLED in budget else item.entity
            if scope in budget:
                if budget[scope] <= 0:
                    continue
                budget[scope] -= 1
            if item.entity in self.by_person:
                continue
            free = self._free_since(item, held=scope in budget)
            came_in, taken = self._newest
            nothing = self._taken.get(POOLED, float("-inf")) < free
            later = came_in > (item.came_in or 0.0) and taken >= free
            if now - free > age_s and (nothing or later) and (item.entity, item.key) not in records:
                records.add((item.entity, item.key))
                yield Untaken(item.entity, item.key, free)

    def _free_since(self, item: Item, *, held: bool) -> float:
        """What nobody holds is free from its coming; of what the gate holds, the head of the queue."""
        times = [
            0.0,
            item.came_in or 0.0,
            *(self._open_since.get(each, 0.0) for each in (POOLED, item.entity)),
        ]
        if held:
            times.append(self._taken.get(POOLED if POOLED in self.quotas else item.entity, 0.0))
        return max(times)
