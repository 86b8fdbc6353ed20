"""From changes of the queue to what the gate is told: each fact once, in runbook seconds since the switch. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from handlers.gate.phrases import is_of
from handlers.gate.traffic import PRIORITY
from handlers.queue.changes import Attempt, Change
from handlers.queue.event import Status

Fact = dict[str, Any]
REPLAY = "replay"


@dataclass
class Timeline:
    """Runbook seconds since the switch, from times of the database's clock, which may be set meanwhile."""

    switched_at: datetime
    speed: float = 1.0
    """Runbook seconds in a real one."""
    shifts: list[tuple[datetime, float]] = field(default_factory=list)
    """From when on the clock is ahead of what was measured, and how far, in real seconds."""

    def at(self, time: datetime) -> float:
        """When that was."""
        ahead = sum(seconds for since, seconds in self.shifts if time >= since)
        return round(((time - self.switched_at).total_seconds() - ahead) * self.speed, 3)

    def shift(self, since: datetime, seconds: float) -> None:
        """The clock was set: times from *since* on are *seconds* ahead."""
        self.shifts.append((since, seconds))

    def time(self, at: float) -> datetime:
        """The time of the clock, as long as nobody set it."""
        return self.switched_at + timedelta(seconds=at / self.speed)


@dataclass
class _Told:
    """What of one event was told."""

    queued: bool = False
    admitted: float | None = None
    attempts: set[float] = field(default_factory=set)
    instant: bool = False
    waits: bool = False
    back: bool = False
    ended: float | None = None


@dataclass
class Facts:
    """Remembers what was told, and makes facts of what is new."""

    timeline: Timeline
    revision: str
    """The released one."""
    begun: float = 0.0
    """From when on the released workers may run: a little before the switch, when they do."""
    replays: Collection[UUID] = ()
    """The dead letters that the release redrives: they are no live traffic."""
    instant_errors: Sequence[str] = ()
    """One error of these types or codes is a breach."""
    queue_counts: bool = True
    """Whether what nobody takes is evidence. Not where the ERP has no workers."""
    _told: dict[str, _Told] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    """What ended long ago. A time of the future brings it back at every look."""

    def open(self) -> list[UUID]:
        """The events of which an end is still to come."""
        return [UUID(id_) for id_, told in self._told.items() if told.ended is None]

    def remember(self, fact: Mapping[str, Any]) -> None:
        """A fact that was told before, by another controller."""
        id_ = fact.get("id")
        if not id_:
            return
        told = self._told.setdefault(id_, _Told())
        match fact["ev"]:
            case "queued":
                told.queued = True
            case "arrive":
                told.admitted = fact["t"]
            case "attempt_failed":
                told.attempts.add(fact["t"])
            case "instant":
                told.instant = True
            case "waits" | "woken":
                told.waits = fact["ev"] == "waits"
            case "back" | "taken":
                told.back = fact["ev"] == "back"
            case "done" | "dead" | "gone":
                told.ended = fact["t"]

    def of(self, changes: Iterable[Change], now: float) -> list[Fact]:
        """The new facts. Events of `open` that are not among *changes* are not in the queue any more."""
        facts, seen = [], set()
        for change in changes:
            if str(change.id) in self._over:
                continue
            seen.add(str(change.id))
            facts += [
                {"ev": fact.pop("ev"), "t": min(fact.pop("t"), now), "id": str(change.id), **fact}
                for fact in self._of(change, now)
            ]
        for id_, told in self._told.items():
            if told.ended is None and id_ not in seen:
                facts.append({"ev": "gone", "t": now, "id": id_})
        for fact in facts:
            self.remember(fact)
        return facts

    def forget(self, before: float) -> None:
        """Forget what was told of an event that ended before then: nothing of it is told any more."""
        for id_ in [id_ for id_, told in self._told.items() if (told.ended or before) < before]:
            del self._told[id_]
            self._over.add(id_)

    def _of(self, change: Change, now: float) -> Iterator[Fact]:
        told = self._told.get(str(change.id)) or _Told()
        if told.ended is not None:
            return
        at = self.timeline.at
        about: Fact = {"seg": change.type, "key": change.key, "kind": self._kind(change)}
        about |= {} if change.priority == PRIORITY else {"priority": change.priority}
        if not change.is_taken and told.admitted is not None:
            if not told.back:
                yield {"ev": "back", "t": now}
            return
        if not change.is_taken:
            if not told.queued and self.queue_counts and about["kind"] != REPLAY:
                yield {"ev": "queued", "t": at(change.created_at), **about}
            return
        admitted = told.admitted
        if admitted is None:
            # A time that cannot be used lies after the look before, and never after the end: a worker's transaction
            # may have begun before the event came in that it then took.
            taken = change.admitted or (change.ended if change.is_ended else None)
            admitted = now if taken is None else at(taken)
            former = {} if self._is_ours(change, admitted) else {"revision": "former"}
            admitted = max(admitted, 0.0) if not former else admitted
            yield {"ev": "arrive", "t": admitted, "arrived": at(change.created_at), **about, **former}
        if told.back:
            yield {"ev": "taken", "t": now}
        yield from self._attempts(change, told, admitted)
        if change.waits_since is not None and not told.waits:
            yield {"ev": "waits", "t": max(at(change.waits_since), admitted), "parent": change.parent}
        if told.waits and (tried := change.failed_otherwise_at) is not None:
            yield {"ev": "woken", "t": max(at(tried), admitted)}
        if change.is_ended:
            ended = now if change.ended is None else max(at(change.ended), admitted)
            if change.status is Status.COMPLETED:
                yield {"ev": "done", "t": ended}
            else:
                error = change.last
                hard, fingerprint = (error.hard, error.fingerprint) if error else (False, None)
                yield {"ev": "dead", "t": ended, "hard": hard, "fingerprint": fingerprint}

    def _attempts(self, change: Change, told: _Told, admitted: float) -> Iterator[Fact]:
        attempts = change.attempts
        waits = change.waits_since is not None
        if not attempts and change.last is not None and not waits and change.status is not Status.COMPLETED:
            # The ERP's own workers keep the last one only.
            attempts = (change.last,)
        dues = [*(each.at for each in attempts[1:]), change.due]
        for attempt, due in zip(attempts, dues, strict=False):
            at = max(self.timeline.at(attempt.at), admitted)
            if at in told.attempts:
                continue
            fact: Fact = {
                "ev": "attempt_failed",
                "t": at,
                "hard": attempt.hard,
                "fingerprint": attempt.fingerprint,
            }
            yield fact if due is None else fact | {"due": self.timeline.at(due)}
            if not told.instant and (name := self._instant(attempt)):
                yield {"ev": "instant", "t": at, "error": name}

    def _kind(self, change: Change) -> str:
        return REPLAY if change.id in self.replays else "live"

    def _is_ours(self, change: Change, admitted: float) -> bool:
        if admitted < self.begun:
            return False
        if (
            change.admitted is None
            and change.status is Status.RETRY
            and change.created_at < self.timeline.switched_at
        ):
            # Who took it first is not known, and it may have failed long before the switch.
            return False
        return change.revision is None or _same(change.revision, self.revision)

    def _instant(self, attempt: Attempt) -> str:
        """The error, if the environment names it."""
        for said in (attempt.code, attempt.fingerprint):
            if said and any(is_of(name, said) for name in self.instant_errors):
                return said
        return ""


def _same(worker: str, released: str) -> bool:
    """Whether two commits are equal as far as both are known: a worker may report only the first digits."""
    digits = min(len(worker), len(released))
    return digits >= 7 and worker[:digits] == released[:digits]
