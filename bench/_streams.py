"""Streams of webhooks for the gate's benchmark, made from a few numbers, and a queue that plays them.

A stream is what would happen to each item if it were admitted. It is settled when the item is admitted, so that a gate
that holds the intake changes what happens. A policy sees events only.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

TYPES = {
    "PRODUCT": 0.40,
    "CUSTOMER": 0.12,
    "SALESORDER": 0.12,
    "INVOICE": 0.10,
    "PAYMENT": 0.08,
    "BILL": 0.05,
    "VENDOR": 0.04,
    "CREDITNOTE": 0.03,
    "STOCKADJ": 0.03,
    "PRICELIST": 0.02,
    "USER": 0.01,
}
TICK, DEADLINE, WATCH = 10.0, 60.0, 1800.0
REPEATS = 0.3
"""The chance that a webhook is followed by another one of the same record: 1.4 webhooks a record."""


class Policy(Protocol):
    """What a gate can be asked."""

    def observe(self, event: Mapping[str, Any]) -> None: ...

    def decide(self, now: float) -> tuple[str, str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One stream. `truth` is healthy, degraded or bad; what the release breaks begins at `onset`."""

    name: str
    truth: str
    rate: float = 60.0
    """Webhooks a minute."""
    minutes: float = 40.0
    failing: float = 0.005
    """The share of records that fail under any release."""
    broken: float = 0.0
    """The share of records that the release breaks, from `onset` on, in `types` (none: all)."""
    onset: float = 0.0
    types: tuple[str, ...] = ()
    hard: bool = True
    """Whether no retry cures what the release breaks."""
    blips: tuple[tuple[float, float, float], ...] = ()
    """Faults of the surroundings: when, how long, and the share of the items that they meet."""
    stall: float = 0.0
    """The share of items that never end, from `onset` on."""
    idle: bool = False
    """From `onset` on no worker takes anything."""
    delays: str = "random"
    """random; failures_first: failures at once, successes at the deadline; failures_last: the reverse."""
    known: int = 0
    """So many records come again and again instead of new ones."""


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """One item: when it comes in, and what would become of it."""

    at: float
    entity: str
    key: str
    breaks: bool
    fails: bool
    luck: float
    quick: float
    slow: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a policy ended a stream."""

    action: str
    at: float
    damaged: int
    held_minutes: float
    why: str = ""


def webhooks(shape: Shape, seed: int) -> list[Webhook]:
    """The items of one stream. The same seed makes the same stream."""
    chance = random.Random(f"{shape.name}:{shape.rate}:{seed}")
    made: list[Webhook] = []
    at = number = 0.0
    end = shape.minutes * 60
    while shape.rate > 0:
        at += chance.expovariate(shape.rate / 60 * (1 - REPEATS))
        if at >= end:
            break
        number += 1
        key = f"record-{chance.randrange(shape.known) if shape.known else int(number)}"
        entity = _type_of(key) if shape.known else chance.choices([*TYPES], [*TYPES.values()])[0]
        hit = at >= shape.onset and (not shape.types or entity in shape.types)
        breaks, fails = hit and chance.random() < shape.broken, chance.random() < shape.failing
        moment = at
        while True:
            made.append(_webhook(chance, moment, entity, key, breaks, fails))
            if chance.random() >= REPEATS:
                break
            moment += chance.random() * 60
    return sorted((each for each in made if each.at < end), key=lambda each: each.at)


def _type_of(key: str) -> str:
    return random.Random(key).choices([*TYPES], [*TYPES.values()])[0]


def _webhook(  # noqa: PLR0917
    chance: random.Random, at: float, entity: str, key: str, breaks: bool, fails: bool
) -> Webhook:
    return Webhook(
        at=at,
        entity=entity,
        key=key,
        breaks=breaks,
        fails=fails,
        luck=chance.random(),
        quick=chance.lognormvariate(0.7, 0.8),
        slow=chance.lognormvariate(2.7, 0.5),
    )


def header(shape: Shape) -> dict[str, Any]:
    """What a policy is told beforehand: nothing of what will happen."""
    baseline = {"ok": 1 - shape.failing if shape.failing < 0.05 else 0.95, "items": int(shape.rate * 1440)}
    return {
        "segments": [*TYPES],
        "deadline_s": DEADLINE,
        "watch_s": WATCH,
        "baseline": baseline,
    }


def play(shape: Shape, seed: int, policy: Policy) -> Outcome:
    """Play one stream to the end, or to the policy's decision."""
    return _Queue(shape, webhooks(shape, seed)).run(policy)


def play_to_the_end(shape: Shape, seed: int, make: Callable[[Mapping[str, Any]], Policy]) -> Outcome:
    """The same with a policy made for the stream."""
    return play(shape, seed, make(header(shape)))


class _Queue:
    """Admits what the policy lets in, every ten seconds the oldest first, and tells what becomes of it."""

    def __init__(self, shape: Shape, items: list[Webhook]) -> None:
        self.shape, self.items = shape, items
        self.events: list[tuple[float, int, dict[str, Any]]] = []
        self.told = self.damaged = 0
        self.offered: set[int] = set()

    def run(self, policy: Policy) -> Outcome:
        waiting: list[int] = []
        coming = held = 0
        look: tuple[str, str, Any] = ("CONTINUE", "", None)
        ticks = int(self.shape.minutes * 60 / TICK)
        for tick in range(ticks):
            begin, end = tick * TICK, (tick + 1) * TICK
            quotas = dict(getattr(policy, "throttled", dict)())
            still = []
            for number in waiting:
                if not self._offer(number, begin, quotas):
                    still.append(number)
            while coming < len(self.items) and self.items[coming].at < end:
                if not self._offer(coming, self.items[coming].at, quotas):
                    item = self.items[coming]
                    self._tell("queued", item.at, coming, seg=item.entity, key=item.key, kind="live")
                    still.append(coming)
                coming += 1
            waiting, held = still, held + len(still)
            for event in self._until(end):
                policy.observe(event)
            look = policy.decide(end)
            if look[0] in {"ROLLBACK", "PROMOTE"}:
                break
        return Outcome(
            action=look[0],
            at=end,
            damaged=self.damaged,
            held_minutes=held * TICK / 60,
            why=look[1],
        )

    def _offer(self, number: int, now: float, quotas: dict[str, int]) -> bool:
        item = self.items[number]
        scope = "*" if "*" in quotas else item.entity
        if quotas.get(scope, 1) <= 0:
            return False
        if scope in quotas:
            quotas[scope] -= 1
        if self.shape.idle and now >= self.shape.onset:
            self.damaged += number not in self.offered
            self.offered.add(number)
            return False
        self._admit(number, item, now)
        return True

    def _admit(self, number: int, item: Webhook, now: float) -> None:
        shape = self.shape
        self._tell("arrive", now, number, seg=item.entity, key=item.key, kind="live", arrived=item.at)
        stalls = now >= shape.onset and item.luck < shape.stall
        self.damaged += item.breaks or stalls
        if stalls:
            return
        blip = any(start <= now < start + long and item.luck < share for start, long, share in shape.blips)
        bad = item.breaks or item.fails or blip
        took = item.slow if bad else item.quick
        if shape.delays != "random":
            at_once = bad == (shape.delays == "failures_first")
            took = 0.1 if at_once else DEADLINE - 0.1
        hard = item.breaks and shape.hard
        if bad:
            self._tell("attempt_failed", now + took / 2, number, hard=hard)
        self._tell("dead" if bad else "done", now + took, number, **({"hard": hard} if bad else {}))

    def _tell(self, event: str, at: float, number: int, **more: Any) -> None:
        self.told += 1
        heapq.heappush(self.events, (at, self.told, {"ev": event, "t": at, "id": number, **more}))

    def _until(self, end: float) -> Iterator[dict[str, Any]]:
        while self.events and self.events[0][0] < end:
            yield heapq.heappop(self.events)[2]
