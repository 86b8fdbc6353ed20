"""Who holds what: a person, the gate itself, an upstream that is away. And what nobody takes though it is free."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.traffic import ORDER, Fact, Item

FOREVER = float("inf")
_ENDS = frozenset({"done", "dead", "gone"})


@dataclass(frozen=True, slots=True)
class Untaken:
    """An item that is free and that no worker has taken."""

    entity: str
    key: str
    free: float
    """Since when."""


@dataclass
class Holds:
    """What concerns no single item, and the queue of what is not admitted."""

    parameters: Parameters
    by_person: dict[str, float] = field(default_factory=dict)
    """Since when a person holds a stream."""
    quotas: dict[str, int] = field(default_factory=dict)
    """What the gate itself lets through at present."""
    outages: list[tuple[float, float]] = field(default_factory=list)
    """When the upstream was away, as its own probe says."""
    delays: deque[float] = field(default_factory=lambda: deque(maxlen=200))
    """How long the last items that nobody held waited for a worker."""
    _queue: dict[str, Item] = field(default_factory=dict)
    _stopped: float = 0.0
    """How long a person held everything, until the last release."""
    _pauses: list[tuple[float, float]] = field(default_factory=list)
    """When a person held anything, or the gate nearly everything, or an outage: parents could not come."""
    _spans: list[tuple[str, float, float]] = field(default_factory=list)
    """What a person holds or held: the stream, from when, until when."""
    _probing: bool = False
    """Whether the gate holds all types to their probes."""
    _open_since: dict[str, float] = field(default_factory=dict)
    """Since when a person does not hold a stream, and its quota is above zero."""
    _metered_since: dict[str, float] = field(default_factory=dict)
    """Since when a stream has a quota above zero."""
    _taken: dict[str, float] = field(default_factory=dict)
    """When something of a stream was taken last."""
    _newest: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By priority, of what was taken the one that came in last: when it came in, and when it was taken."""
    _served: dict[int, float] = field(default_factory=dict)
    """By priority, when something was taken last."""
    _busy: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """By record, the items that a worker has, or that are to be tried again: what is newer cannot be taken."""
    _idle_since: dict[tuple[str, str], float] = field(default_factory=dict)
    """When the last of them ended."""
    _back: dict[str, Item] = field(default_factory=dict)
    """What a worker gave back, and none has taken since."""
    _noted: dict[str, tuple[float, int]] = field(default_factory=dict)
    """The last thing that was noted of an item, after its coming: time and rank."""
    _starts_until: float = -FOREVER
    """Until when the released workers were being started. What waited for them is free from then on."""
    _unwatched_until: float = -FOREVER
    _read_until: float = -FOREVER

    def follows(self, fact: Fact) -> bool:
        """Whether *fact*, if it is late, can still be read: of an item, if nothing later was noted of it."""
        if not fact.item:
            return fact.at >= self._read_until
        return fact.kind == "queued" or (fact.at, fact.rank) >= self._noted.get(fact.item, (-FOREVER, 0))

    def read(self, fact: Fact, item: Item | None) -> None:
        """One fact."""
        match fact.kind:
            case "queued" if item is not None and item.kind != "replay":
                over = ORDER[self._noted.get(fact.item, (0.0, 0))[1]] in _ENDS
                if not over and (item.admitted is None or item.admitted > fact.at):
                    self._queue[fact.item] = item
            case "arrive" if item is not None:
                self._take(item, fact.at)
            case "done" | "dead" | "gone":
                # It may have ended without ever being taken.
                self._queue.pop(fact.item, None)
        if item is not None and fact.kind != "queued":
            self._noted[item.id] = (fact.at, fact.rank)
            self._hold_back(fact.kind, item, fact.at)
        if not fact.item:
            self._read_around(fact)

    def _read_around(self, fact: Fact) -> None:
        """A fact that concerns no single item."""
        told, at = fact.told, fact.at
        match fact.kind:
            case "held":
                if str(told["seg"]) not in self.by_person:
                    self.by_person[str(told["seg"])] = at
                    self._spans.append((str(told["seg"]), at, FOREVER))
            case "released":
                self._release(str(told["seg"]), at)
            case "upstream":
                self._upstream(at, up=bool(told.get("up")))
            case "intake":
                self._probing = bool(told.get("probing"))
                self._intake(at, {str(stream): int(quota) for stream, quota in told["quotas"].items()})
            case "unwatched":
                self._unwatched_until = at
            case "starting":
                self._starts_until = float(told["until"])
            case "started":
                self._started(at)
        self._read_until = max(self._read_until, at)
        self._pause(at, bool(self.by_person) or self._probing or self.upstream_away)

    def _started(self, at: float) -> None:
        self._starts_until = min(self._starts_until, at)

    def _take(self, item: Item, at: float) -> None:
        if not item.former:
            self._started(at)
        self._queue.pop(item.id, None)
        for stream in (POOLED, item.entity):
            self._taken[stream] = max(self._taken.get(stream, at), at)
        came_in = at if item.came_in is None else item.came_in
        self._newest[item.priority] = max(self._newest.get(item.priority, (came_in, at)), (came_in, at))
        self._served[item.priority] = max(self._served.get(item.priority, at), at)
        if not self.quotas and not self.by_person and came_in >= 0:
            self.delays.append(at - came_in)

    def _hold_back(self, kind: str, item: Item, at: float) -> None:
        """Note whether the item holds back what is newer of its record. What waits for a parent does not."""
        record = (item.entity, item.key)
        self._back.pop(item.id, None)
        if kind == "back":
            self._back[item.id] = item
        if kind in {"arrive", "taken", "woken"}:
            self._busy.setdefault(record, set()).add(item.id)
        elif kind in {"back", "waits", "done", "dead", "gone"} and item.id in self._busy.get(record, ()):
            self._busy[record].discard(item.id)
            self._idle_since[record] = max(self._idle_since.get(record, at), at)
            if not self._busy[record]:
                del self._busy[record]

    def _release(self, stream: str, at: float) -> None:
        since = self.by_person.pop(stream, None)
        if since is not None:
            self._spans = [
                (name, begin, at if name == stream and end == FOREVER else end)
                for name, begin, end in self._spans
            ]
            self._open_since[stream] = at
            self._stopped += at - max(since, 0.0) if stream == POOLED else 0.0

    def _upstream(self, at: float, *, up: bool) -> None:
        if up and self.upstream_away:
            self.outages[-1] = (self.outages[-1][0], at)
        elif not up and not self.upstream_away:
            self.outages.append((at, FOREVER))

    def _intake(self, at: float, quotas: dict[str, int]) -> None:
        for stream in self.quotas.keys() | quotas.keys():
            if self.quotas.get(stream) == 0 and quotas.get(stream, 1) > 0:
                self._open_since[stream] = self._metered_since[stream] = at
            elif stream not in self.quotas:
                self._metered_since[stream] = at
        self.quotas = quotas

    def _pause(self, at: float, pausing: bool) -> None:
        paused = bool(self._pauses) and self._pauses[-1][1] == FOREVER
        if pausing and not paused:
            self._pauses.append((at, FOREVER))
        elif paused and not pausing:
            self._pauses[-1] = (self._pauses[-1][0], at)

    def paused(self, since: float, until: float) -> float:
        """How long between *since* and *until* parents could not come."""
        return sum(
            max(min(end, until) - max(begin, since), 0.0) for begin, end in self._pauses if end > since
        )

    def held(self, entity: str, since: float, until: float) -> float:
        """How long between *since* and *until* a person held the type, or all."""
        spans = sorted((begin, end) for name, begin, end in self._spans if name in (POOLED, entity))
        total, reached = 0.0, since
        for begin, end in spans:
            begin, end = max(begin, reached), min(end, until)
            if end > begin:
                total, reached = total + end - begin, end
        return total

    def away(self, since: float, until: float) -> float:
        """How long between *since* and *until* the upstream, or the database, was away."""
        return sum(max(min(end, until) - max(begin, since), 0.0) for begin, end in self.outages)

    @property
    def upstream_away(self) -> bool:
        """Whether its probe says now that the upstream is away."""
        return bool(self.outages) and self.outages[-1][1] == FOREVER

    def are_starting(self, now: float) -> bool:
        """Whether the released workers have not proven to run yet, and may still be starting."""
        return now < self._starts_until

    def to_be_confirmed(self, now: float) -> float:
        """For how many seconds more a breach does not count.

        Nobody looked for a while. What held the events then, and is over, leaves some behind that nobody has taken yet:
        the workers need a moment for them.
        """
        return max(self._unwatched_until + 2 * self.parameters.tick_s - now, 0.0)

    def watched(self, now: float) -> float:
        """How long the watch has lasted: not while a person held everything."""
        since = self.by_person.get(POOLED)
        return now - self._stopped - (now - max(since, 0.0) if since is not None else 0.0)

    def masked(self, block: int) -> bool:
        """Whether *block* lies within a confirmed outage or its margins."""
        p = self.parameters
        start, end = block * p.block_s, (block + 1) * p.block_s
        return any(
            start < back + p.outage_margin_s and end > away - p.outage_margin_s for away, back in self.outages
        )

    def queued(self) -> list[str]:
        """The types of what waits for a worker, also for a second time, in the order in which workers take it."""
        return [item.entity for item in _in_turn([*self._queue.values(), *self._back.values()])]

    def untaken(self, now: float, age_s: float) -> Iterator[Untaken]:
        """What has been free for longer than *age_s*, while nothing is taken or later ones are. A record once."""
        if POOLED in self.by_person:
            return
        ahead: dict[str, int] = {}
        records: set[tuple[str, str]] = set()
        for item in _in_turn(self._queue.values()):
            record = (item.entity, item.key)
            if record in self._busy:
                # An older event of the record comes first, and is evidence itself.
                continue
            scope = POOLED if POOLED in self.quotas else item.entity
            place = ahead[scope] = ahead.get(scope, -1) + 1
            if item.entity in self.by_person or self.quotas.get(scope, 1) <= 0 or record in records:
                continue
            free = max(self._free_since(item, scope, place), self._idle_since.get(record, 0.0))
            nothing = self._taken.get(POOLED, -FOREVER) < free
            if now - free > age_s and (nothing or self._overtaken(item, free)):
                records.add(record)
                yield Untaken(*record, free)

    def _overtaken(self, item: Item, free: float) -> bool:
        """Whether workers have taken something since it was free that comes after it."""
        came_in, taken = self._newest.get(item.priority, (-FOREVER, -FOREVER))
        after = (at for priority, at in self._served.items() if priority > item.priority)
        return (came_in > (item.came_in or 0.0) and taken >= free) or max(after, default=-FOREVER) >= free

    def _free_since(self, item: Item, scope: str, place: int) -> float:
        """What nobody holds is free from its coming. Of a stream with a quota, that many become free in each tick."""
        opened = (self._open_since.get(stream, 0.0) for stream in (POOLED, item.entity))
        free = max(0.0, item.came_in or 0.0, self._starts_until, *opened)
        quota = self.quotas.get(scope)
        if quota is None:
            return free
        later = place // quota * self.parameters.tick_s
        if later:
            free = max(free, self._metered_since[scope] + later)
        return max(free, self._taken.get(scope, 0.0) + later)


def _in_turn(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda each: (each.priority, each.came_in or 0.0, each.id))
