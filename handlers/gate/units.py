"""From items to units of evidence: what counts, in which block, and when it is known to be bad.

A unit is one record, once in two minutes, settled when the item is admitted and before its end is known. A record that
failed counts again after ten minutes; until then its failures are one fact, and its recovery is one good unit.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator

from handlers.gate.blocks import HARD, SOFT, WAITS, Distinct, Standing, Table
from handlers.gate.courses import Course, Record
from handlers.gate.day_before import DayBefore
from handlers.gate.holds import Holds
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.traffic import Fact, Item

BACKLOG_S = 30.0
"""How far back the backlog is looked at."""
SAMPLE = 200
"""How many completions it is compared with."""


class Units:
    """Reads facts about items in the order of their times, and keeps the tables."""

    def __init__(self, parameters: Parameters, before: DayBefore, holds: Holds) -> None:
        self.parameters = parameters
        self.before = before
        self.tables: dict[str, Table] = {POOLED: Table()}
        self.distinct = Distinct()
        self.standing: dict[str, Standing] = {}
        self.open: dict[str, Course] = {}
        self.recent: list[Course] = []
        """What was admitted in the last seconds."""
        self.outcomes: list[Course] = []
        """What completed or failed since the breaker read it, in the order in which it became known."""
        self.took: deque[float] = deque(maxlen=SAMPLE)
        """How long the last completed items took."""
        self.live = 0
        """How many live items were admitted."""
        self.instant: tuple[str, str] | None = None
        """The type and the first error of those that the environment names as a breach."""
        self.timed = 0
        """How many items completed whose type has a p99 of the day before, and did not wait for a parent."""
        self.slower = 0
        """How many of them took longer than that p99, and longer than a webhook may take."""
        self.limit_wait = max(parameters.wait_min_s, parameters.wait_factor * (before.wait_p99_s or 0.0))
        self._holds = holds
        self._records: dict[tuple[str, str], Record] = {}
        self._missing: set[str] = set()
        """The parents that were waited for too long. Each counts once."""
        self._clocks: list[tuple[float, str, float]] = []
        """When which item is late or stuck, if it is still open with that clock."""
        self._unplaced: set[str] = set()
        """Items of which something was told before their admission."""
        self._read_until = float("-inf")

    def follows(self, fact: Fact, item: Item) -> bool:
        """Whether *fact*, if it is late, can still be read: nothing later was noted of its record."""
        if fact.kind == "arrive" and fact.item in self._unplaced:
            return False
        if fact.kind in {"waits", "woken"}:
            return fact.at >= self._read_until
        record = self._records.get((item.entity, item.key))
        return record is None or fact.at >= record.touched

    def read(self, fact: Fact, item: Item) -> None:
        """One fact about an item. What the former revision took, and replays, are not evidence."""
        self._expire(fact.at)
        if fact.kind == "done" and item.kind == "replay" and item.admitted is not None and not item.former:
            self._replayed(item, item.admitted, fact.at)
        if fact.kind == "arrive" and not item.former and item.kind != "replay":
            self._admit(item, fact.at)
        course = self.open.get(fact.item)
        if course is None:
            if item.admitted is None and fact.kind != "queued":
                self._unplaced.add(fact.item)
            return
        self._touch(course, fact.at)
        self._read_until = max(self._read_until, fact.at)
        match fact.kind:
            case "attempt_failed":
                self._attempt(course, fact.at, bool(fact.told.get("hard")), fact.told.get("fingerprint"))
                course.backoff += max((fact.told.get("due") or fact.at) - fact.at, 0.0)
            case "instant":
                self.instant = self.instant or (course.entity, str(fact.told.get("error", "")))
            case "back" | "taken":
                course.back, course.was_back = fact.kind == "back", True
            case "waits":
                if course.waiting_since is None:
                    course.waiting_since, course.parent = fact.at, str(fact.told.get("parent", ""))
            case "woken":
                self._wake(course, fact.at)
            case "gone":
                self._wake(course, fact.at)
                course.ended = fact.at
                del self.open[course.id]
            case "done" | "dead":
                self._end(course, fact.at, item)

    def advance(self, now: float) -> None:
        """What time alone makes of the items that are open."""
        self._read_until = max(self._read_until, now)
        self._expire(now)
        self._age_waiting(now)
        block = self.parameters.block(now)
        for table in self.tables.values():
            table.reach(block)
        self.distinct.reach(block)
        self.recent = [course for course in self.recent if now - course.admitted <= BACKLOG_S]

    def is_news(self, course: Course) -> bool:
        """Whether its failure tells something. Of a type that failed before, only a new error does."""
        if not self.before.failing_bound(course.entity, self.parameters.ok):
            return True
        return bool(self.before.of(course.entity).fingerprints) and not course.known

    def _admit(self, item: Item, at: float) -> None:
        p = self.parameters
        course = Course(item.id, item.entity, item.key, item.kind == "live", at, p.block(at), clock=at)
        self.open[item.id] = course
        self._start(course)
        self.recent.append(course)
        self.live += course.live
        record = self._records.setdefault((item.entity, item.key), Record())
        if record.counts(at, p):
            self._count(course, record)
        if record.promotion is None or at - record.promotion >= p.promotion_unit_s:
            course.promotes, record.promotion = True, at
            self.distinct.count("units", course.block)

    def _replayed(self, item: Item, admitted: float, at: float) -> None:
        """That a dead letter now completes opens the intake: it may be the first thing that the release applies."""
        self.outcomes.append(
            Course(
                item.id,
                item.entity,
                item.key,
                live=False,
                admitted=admitted,
                block=self.parameters.block(admitted),
                clock=admitted,
                ended=at,
                good=True,
            )
        )

    def _count(self, course: Course, record: Record) -> None:
        course.counted = True
        record.last, record.failed = course, None
        for table in self._tables(course):
            table.add(course.block)

    def _attempt(self, course: Course, at: float, hard: bool, fingerprint: str | None) -> None:
        course.known = self.before.knows(course.entity, fingerprint)
        if hard and not course.known:
            # No retry cures it and it is new: there is no need to wait until the item is buried.
            self._fail(course, at)
            self._harden(course, at)

    def _wake(self, course: Course, at: float) -> None:
        if course.waiting_since is not None:
            self._age_waiting(at)
            course.waiting_since, course.clock = None, at
            self._start(course)

    def _end(self, course: Course, at: float, item: Item) -> None:
        self._wake(course, at)
        course.ended = at
        del self.open[course.id]
        record = self._records[course.entity, course.key]
        if not item.dead:
            self._time(course, item, at - course.clock)
            if course.bad_at is None:
                self._complete(course, record, at)
            return
        course.known = self.before.knows(course.entity, item.fingerprint)
        self._fail(course, at)
        if item.hard and not course.known:
            self._harden(course, at)
        self._again(course, record, at)

    def _time(self, course: Course, item: Item, took: float) -> None:
        self.took.append(took)
        p99 = self.before.p99(course.entity)
        if p99 and not item.waits:
            self.timed += 1
            self.slower += took > max(p99, self.parameters.time_s)

    def _complete(self, course: Course, record: Record, at: float) -> None:
        course.good = True
        self.outcomes.append(course)
        self._stand(course, good=True)
        if course.promotes:
            self.distinct.count("good", course.block)
        record.note_failure(at, self.parameters)
        if not course.counted and record.failed is not None and course.admitted >= record.failed.admitted:
            self._count(course, record)

    def _again(self, course: Course, record: Record, at: float) -> None:
        """A record that failed, and fails again later than any blip lasts: its first failure was no blip."""
        first = record.failed
        if (
            first is not None
            and first is not course
            and course.admitted - first.admitted >= self.parameters.stuck_s
            and not (course.known or first.known)
        ):
            self._harden(first, at)

    def _start(self, course: Course) -> None:
        """Set the clocks at which it is late, and stuck, if it has not ended."""
        for after in (self.parameters.deadline_s, self.parameters.stuck_s):
            heapq.heappush(self._clocks, (course.clock + after, course.id, course.clock))

    def _expire(self, now: float) -> None:
        """What time alone has made of the items before *now*, in order."""
        while self._clocks and self._clocks[0][0] < now:
            due, item, clock = heapq.heappop(self._clocks)
            course = self.open.get(item)
            if course is None or course.waiting_since is not None or course.clock != clock:
                continue
            self._fail(course, due)
            if due - clock >= self.parameters.stuck_s and not course.known:
                if (later := clock + self.parameters.stuck_s + self._waited(course, due)) > due:
                    heapq.heappush(self._clocks, (later, course.id, clock))
                    continue
                self._harden(course, due)
            self._touch(course, math.nextafter(due, math.inf))

    def _waited(self, course: Course, now: float) -> float:
        """How long nobody was to have it: in an outage, between its attempts, and while a person held its type then."""
        away = self._holds.away(course.clock, now)
        if not course.backoff and not course.was_back:
            return away
        return away + course.backoff + self._holds.held(course.entity, course.clock, now)

    def _age_waiting(self, now: float) -> None:
        """In the order in which they began to wait: of those that miss one parent, the first counts."""
        waiting = [course for course in self.open.values() if course.waiting_since is not None]
        for course in sorted(waiting, key=lambda each: (each.waiting_since, each.admitted, each.id)):
            since = course.waiting_since or 0.0
            if course.waited_at is None and now - since - self._holds.paused(since, now) > self.limit_wait:
                course.waited_at = now
                self._touch(course, math.nextafter(now, math.inf))
                if course.counted and course.parent not in self._missing:
                    self._missing.add(course.parent)
                    self._mark(course, WAITS, self._tables(course))

    def _stand(self, course: Course, *, good: bool) -> None:
        self.standing.setdefault(course.entity, Standing()).note(course.key, good=good)

    def _fail(self, course: Course, at: float) -> None:
        if course.bad_at is not None:
            return
        course.bad_at = at
        self._touch(course, at)
        self.outcomes.append(course)
        if course.promotes:
            self.distinct.count("bad", course.block)
        if not course.known:
            self._stand(course, good=False)
        if course.counted:
            self._mark(course, SOFT, self._tables(course))

    def _harden(self, course: Course, at: float) -> None:
        if course.hard_at is not None:
            return
        course.hard_at = at
        self._touch(course, at)
        if course.counted:
            # A type that was below the bar before is no reason to go back for all: only its own stream weighs it.
            better = self.before.of(course.entity).ok > self.parameters.bad
            self._mark(course, HARD, self._tables(course, pooled=better))

    def _touch(self, course: Course, at: float) -> None:
        record = self._records[course.entity, course.key]
        record.touched = max(record.touched, at)

    def _mark(self, course: Course, track: str, tables: Iterator[Table]) -> None:
        for table in tables:
            table.mark(track, course.block)

    def _tables(self, course: Course, *, pooled: bool = True) -> Iterator[Table]:
        if pooled:
            yield self.tables[POOLED]
        table = self.tables.setdefault(course.entity, Table())
        table.reach(course.block)
        yield table
