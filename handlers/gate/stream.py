"""Judging a file of events as it would have been judged live, and playing a stream under the gate's own holds.

A stream says what each item would do. When it is taken depends on the intake, which the gate may hold. So a stream is
played like a queue: every ten seconds what waits is offered again, the oldest first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from handlers.gate.again import Numbers
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.sequential import Gate
from handlers.gate.told_file import KINDS, ToldFile
from handlers.gate.values import Finding, Judgement

TICK = 10.0
LIVE = 0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One look at a file."""

    now: float
    """Seconds since the switch."""
    judgement: Judgement

    @property
    def ends(self) -> bool:
        """Whether nothing follows: a breach, or a watch that has passed."""
        return self.judgement.finding in (Finding.UNHEALTHY, Finding.HEALTHY)


def judge_file(told: ToldFile, numbers: Numbers | None = None) -> Iterator[Decision]:
    """Every look, each ten seconds, until one ends the release or the watch and the file are over.

    Raises ValueError for numbers that contradict each other.
    """
    parameters = (numbers or Numbers()).parameters(
        Parameters(watch_s=told.watch_s, deadline_s=told.deadline_s)
    )
    gate = Gate(told.types, told.before, parameters, slow_start=told.is_stream)
    for now in _judged(gate, told):
        decision = Decision(now=now, judgement=gate.decide(now) if told.is_stream else gate.verdict(now))
        yield decision
        if decision.ends:
            return


def _judged(gate: Gate, told: ToldFile) -> Iterator[float]:
    """The times of the looks. Before each the gate has been told what had happened."""
    if told.is_stream:
        yield from _Queue(told).play(gate)
        return
    last = max((float(event["t"]) for event in told.events), default=0.0)
    position = 0
    for tick in range(1, math.ceil(max(told.watch_s, last) / TICK) + 1):
        now = tick * TICK
        while position < len(told.events) and told.events[position]["t"] < now:
            gate.observe(told.events[position])
            position += 1
        yield now


@dataclass(eq=False)
class _Waiting:
    """An item that nobody has taken yet."""

    number: int
    row: Sequence[Any]


@dataclass
class _Queue:
    """What the items of a stream do once they are taken, as events in the order of time."""

    told: ToldFile
    events: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)
    _told: int = 0
    _done_at: dict[str, float] = field(default_factory=dict)
    _children: dict[str, list[tuple[Sequence[Any], int, float]]] = field(default_factory=dict)
    _used: dict[int | str, int] = field(default_factory=dict)
    """What was taken in this tick, of each hold of a person and of each quota of the gate."""

    def play(self, gate: Gate) -> Iterator[float]:
        """The times of the looks, with the gate told what happened before each and holding what it wants."""
        env, rows = self.told.env, self.told.rows
        for at, up in env.get("probe", ()):
            self._tell("upstream", at, up=bool(up))
        for start, end, stream, quota in env.get("holds", ()):
            self._tell("held", start, seg=stream, per_10s=quota)
            self._tell("released", end, seg=stream)
        waiting: list[_Waiting] = []
        position = 0
        while position < len(rows) and rows[position][0] < 0:
            waiting.append(self._come(position, rows[position]))
            position += 1
        end_s = self.told.end_s
        if end_s is None:
            end_s = max(self.told.watch_s, rows[-1][0] / 1000 if rows else 0.0)
        for tick in range(math.ceil(end_s / TICK)):
            start, end = tick * TICK, (tick + 1) * TICK
            quotas, self._used = gate.throttled(), {}
            waiting = [each for each in waiting if not self._offer(each.number, each.row, start, quotas)]
            while position < len(rows) and rows[position][0] < end * 1000:
                row = rows[position]
                if not self._offer(position, row, row[0] / 1000, quotas):
                    waiting.append(self._come(position, row))
                position += 1
            while self.events and self.events[0][0] < end:
                gate.observe(heapq.heappop(self.events)[2])
            yield end

    def _come(self, number: int, row: Sequence[Any]) -> _Waiting:
        self._tell("queued", row[0] / 1000, id=number, **self._about(row))
        return _Waiting(number, row)

    def _offer(self, number: int, row: Sequence[Any], now: float, quotas: Mapping[str, int]) -> bool:
        """Whether it is taken: no person, no quota of the gate and no idle worker stands in the way."""
        env, entity = self.told.env, self.told.types[row[2]]
        holds = [
            (at, quota)
            for at, (start, end, stream, quota) in enumerate(env.get("holds", ()))
            if start <= now < end and stream in (POOLED, entity)
        ]
        if any(self._used.get(at, 0) >= quota for at, quota in holds):
            return False
        stream = POOLED if POOLED in quotas else entity
        if row[9] == LIVE and stream in quotas:
            if self._used.get(stream, 0) >= quotas[stream]:
                return False
            self._used[stream] = self._used.get(stream, 0) + 1
        if any(
            start <= now < end and stream in (POOLED, entity) for start, end, _, stream in env.get("idle", ())
        ):
            return False
        for at, _ in holds:
            self._used[at] = self._used.get(at, 0) + 1
        self._take(number, row, now)
        return True

    def _take(self, number: int, row: Sequence[Any], now: float) -> None:
        more = _more(row)
        former = {"revision": "former"} if more.get("former") else {}
        self._tell("arrive", now, id=number, arrived=row[0] / 1000, **self._about(row), **former)
        if "parent" not in more:
            self._settle(number, row, now)
            return
        first, ready = now + row[3] / 3000, self._done_at.get(more["parent"])
        if ready is not None and ready <= first:
            self._settle(number, row, now)
            return
        self._tell("waits", first, id=number, parent=more["parent"] or f"?{number}")
        if ready is not None:
            self._wake(number, row, ready)
        elif more["parent"]:
            self._children.setdefault(more["parent"], []).append((row, number, first))

    def _wake(self, number: int, row: Sequence[Any], now: float) -> None:
        self._tell("woken", now, id=number)
        self._settle(number, row, now)

    def _settle(self, number: int, row: Sequence[Any], now: float) -> None:
        _, key, _, ok_ms, bad_ms, rel, coin, hard, retries, _ = row[:10]
        env, luck = self.told.env, coin / 10000
        outage = any(
            start <= now < start + long and luck < share for start, long, share in env.get("outages", ())
        )
        bad = bool(rel) or outage
        took = (bad_ms if bad else ok_ms) / 1000
        end = max(
            [now + took, *(z for a, z, share in env.get("stalls", ()) if a <= now < z and luck < share)]
        )
        fingerprint = _more(row).get("fp") if rel else env.get("outage_fp")
        why = {"hard": bool(hard and rel), **({"fingerprint": fingerprint} if bad and fingerprint else {})}
        for part in (1 / 3, 2 / 3) if bad else (0.5,) if retries else ():
            self._tell("attempt_failed", now + took * part, id=number, **why)
        self._tell("dead" if bad else "done", end, id=number, **(why if bad else {}))
        if not bad:
            self._done_at[key] = min(end, self._done_at.get(key, end))
            for child, other, since in self._children.pop(key, ()):
                self._wake(other, child, max(end, since))

    def _about(self, row: Sequence[Any]) -> dict[str, Any]:
        was = {"was": _more(row)["was"]} if "was" in _more(row) else {}
        return {"seg": self.told.types[row[2]], "key": row[1], "kind": KINDS[row[9]], **was}

    def _tell(self, event: str, at: float, **more: Any) -> None:
        self._told += 1
        heapq.heappush(self.events, (at, self._told, {"ev": event, "t": at, **more}))


def _more(row: Sequence[Any]) -> Mapping[str, Any]:
    return row[10] if len(row) > 10 else {}
