"""From items to units of evidence: what counts, in which block, and when it is known to be bad.

A unit is one record, once in two minutes, settled when the item is admitted and before its end is known. A record that
failed counts again after ten minutes; until then its failures are one fact, and its recovery is one good unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from handlers.gate.day_before import DayBefore
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.traffic import Fact, Item

SOFT, HARD, WAITS = "soft", "hard", "waits"
BACKLOG_S = 30.0
"""How far back the backlog is looked at."""


@dataclass(slots=True)
class Course:
    """One admitted item of the released revision, on its way."""

    id: str
    entity: str
    key: str
    live: bool
    admitted: float
    block: int
    clock: float
    """Since when it could complete: its admission, or when it was woken."""
    counted: bool = False
    promotes: bool = False
    """Whether it is a unit of the promotion: a record once in ten minutes."""
    waiting_since: float | None = None
    parent: str = ""
    ended: float | None = None
    good: bool = False
    bad_at: float | None = None
    hard_at: float | None = None
    waited_at: float | None = None
    """When its wait became a failure."""
    known: bool = False
    """Whether the last error that it met is one that its type had the day before."""

    def failed_by(self, now: float, parameters: Parameters) -> bool:
        """Whether it has failed, as far as is known at *now*."""
        if self.bad_at is not None:
            return self.bad_at <= now
        open_ = self.ended is None and self.waiting_since is None
        return open_ and now - self.clock > parameters.deadline_s


@dataclass(slots=True)
class Record:
    """What is remembered of one record."""

    last: Course | None = None
    """Its last unit."""
    failed: Course | None = None
    """The unit that failed, while the record has not recovered."""
    promotion: Course | None = None


@dataclass
class Distinct:
    """The units of the promotion by block: admitted, completed in time, and failed."""

    units: list[int] = field(default_factory=list)
    good: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)

    def reach(self, block: int) -> None:
        missing = block + 1 - len(self.units)
        if missing > 0:
            for counts in (self.units, self.good, self.bad):
                counts.extend([0] * missing)


@dataclass
class Standing:
    """How the records of a type stand: how each ended when it last came. Known errors stand for nothing."""

    failed: set[str] = field(default_factory=set)
    completed: set[str] = field(default_factory=set)
    failures: int = 0
    successes: int = 0

    def note(self, key: str, good: bool) -> None:
        self.failures += not good
        self.successes += good
        (self.failed if good else self.completed).discard(key)
        (self.completed if good else self.failed).add(key)


@dataclass
class Table:
    """The block table of one stream: units, and the bad ones by track."""

    units: list[int] = field(default_factory=list)
    soft: list[int] = field(default_factory=list)
    hard: list[int] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    changed: dict[str, int] = field(default_factory=lambda: {SOFT: 0, HARD: 0, WAITS: 0})
    """How often the bad ones of a track grew: without that the odds cannot have grown."""

    def track(self, name: str) -> list[int]:
        return {SOFT: self.soft, HARD: self.hard, WAITS: self.waits}[name]

    def reach(self, block: int) -> None:
        """Make the table long enough for *block*."""
        missing = block + 1 - len(self.units)
        if missing > 0:
            for counts in (self.units, self.soft, self.hard, self.waits):
                counts.extend([0] * missing)

    def add(self, block: int) -> None:
        self.reach(block)
        self.units[block] += 1

    def mark(self, name: str, block: int) -> None:
        self.track(name)[block] += 1
        self.changed[name] += 1


class Units:
    """Reads the facts in the order of their times, and keeps the tables."""

    def __init__(self, parameters: Parameters, before: DayBefore) -> None:
        self.parameters = parameters
        self.before = before
        self.tables: dict[str, Table] = {POOLED: Table()}
        self.records: dict[tuple[str, str], Record] = {}
        self.open: dict[str, Course] = {}
        self.recent: list[Course] = []
        """What was admitted lately, for the backlog."""
        self.distinct = Distinct()
        self.standing: dict[str, Standing] = {}
        self.outcomes: list[tuple[float, Course]] = []
        """What ended, failed for good or became late, in the order in which it was known."""
        self.took: list[float] = []
        """How long the completed ones took."""
        self.live = 0
        self._missing: set[str] = set()
        """The parents that were waited for too long, each counted once."""
        self.limit_wait = max(parameters.wait_min_s, parameters.wait_factor * (before.wait_p99_s or 0.0))

    def read(self, fact: Fact, item: Item) -> None:
        """One fact about an item. What the former revision took, and replays, are not evidence."""
        if fact.kind == "arrive":
            if not item.former and item.kind != "replay":
                self._admit(item, fact.at)
            return
        course = self.open.get(fact.item)
        if course is None:
            return
        match fact.kind:
            case "attempt_failed":
                self._attempt(course, fact.at, bool(fact.told.get("hard")), fact.told.get("fingerprint"))
            case "waits":
                if course.waiting_since is None:
                    course.waiting_since, course.parent = fact.at, str(fact.told.get("parent", ""))
            case "woken":
                self._wake(course, fact.at)
            case "done" | "dead":
                self._end(course, fact, item)

    def advance(self, now: float) -> None:
        """What time alone makes of the items that are open."""
        self._age_waiting(now)
        for course in list(self.open.values()):
            self._age(course, now)
        block = self.parameters.block(now)
        for table in self.tables.values():
            table.reach(block)
        self.distinct.reach(block)
        self.recent = [course for course in self.recent if now - course.admitted <= BACKLOG_S]

    def _admit(self, item: Item, at: float) -> None:
        p = self.parameters
        course = Course(item.id, item.entity, item.key, item.kind == "live", at, p.block(at), clock=at)
        self.open[item.id] = course
        self.recent.append(course)
        self.live += course.live
        record = self.records.setdefault((item.entity, item.key), Record())
        if record.failed is None and record.last is not None and record.last.failed_by(at, p):
            record.failed = record.last
        if record.failed is not None:
            course.counted = at - record.failed.admitted >= p.unit_failed_s
        else:
            course.counted = record.last is None or at - record.last.admitted >= p.unit_s
        if course.counted:
            self._count(course)
            record.last, record.failed = course, None
        if record.promotion is None or at - record.promotion.admitted >= p.promotion_unit_s:
            course.promotes, record.promotion = True, course
            self.distinct.reach(course.block)
            self.distinct.units[course.block] += 1

    def _count(self, course: Course) -> None:
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

    def _end(self, course: Course, fact: Fact, item: Item) -> None:
        self._wake(course, fact.at)
        self._age(course, fact.at)
        course.ended = fact.at
        del self.open[course.id]
        record = self.records[course.entity, course.key]
        if fact.kind == "done":
            self.took.append(fact.at - course.clock)
            if course.bad_at is None:
                self._complete(course, record, fact.at)
        else:
            course.known = self.before.knows(course.entity, item.fingerprint)
            self._fail(course, fact.at)
            if item.hard and not course.known:
                self._harden(course, fact.at)
            self._again(course, record, fact.at)

    def _complete(self, course: Course, record: Record, at: float) -> None:
        course.good = True
        self._stand(course, good=True)
        if course.promotes:
            self.distinct.good[course.block] += 1
        self.outcomes.append((at, course))
        if record.failed is None and record.last is not None and record.last.failed_by(at, self.parameters):
            record.failed = record.last
        if not course.counted and record.failed is not None and course.admitted >= record.failed.admitted:
            self._count(course)
            record.last, record.failed = course, None

    def _again(self, course: Course, record: Record, at: float) -> None:
        """A record that failed and fails again later than any blip lasts: its first failure was no blip."""
        first = record.failed
        if (
            first is not None
            and first is not course
            and course.admitted - first.admitted >= self.parameters.stuck_s
            and not course.known
            and not first.known
        ):
            self._harden(first, at)

    def _age(self, course: Course, now: float) -> None:
        p = self.parameters
        if course.waiting_since is not None:
            if course.waited_at is None and now - course.waiting_since > self.limit_wait:
                course.waited_at = course.waiting_since + self.limit_wait
                if course.counted and course.parent not in self._missing:
                    self._missing.add(course.parent)
                    self._mark(course, WAITS)
            return
        if course.bad_at is None and now - course.clock > p.deadline_s:
            self._fail(course, course.clock + p.deadline_s)
        if course.hard_at is None and now - course.clock > p.stuck_s and not course.known:
            self._harden(course, course.clock + p.stuck_s)

    def _age_waiting(self, now: float) -> None:
        """In the order in which they began to wait: of those that miss one parent the first counts."""
        waiting = [course for course in self.open.values() if course.waiting_since is not None]
        for course in sorted(waiting, key=lambda each: (each.waiting_since, each.admitted, each.id)):
            self._age(course, now)

    def _stand(self, course: Course, *, good: bool) -> None:
        self.standing.setdefault(course.entity, Standing()).note(course.key, good)

    def _fail(self, course: Course, at: float) -> None:
        if course.bad_at is None:
            course.bad_at = at
            self.outcomes.append((at, course))
            if course.promotes:
                self.distinct.bad[course.block] += 1
            if not course.known:
                self._stand(course, good=False)
            if course.counted:
                self._mark(course, SOFT)

    def _harden(self, course: Course, at: float) -> None:
        if course.hard_at is None:
            course.hard_at = at
            if course.counted:
                self._mark(course, HARD)

    def _mark(self, course: Course, track: str) -> None:
        for table in self._tables(course):
            table.mark(track, course.block)

    def _tables(self, course: Course) -> Iterator[Table]:
        yield self.tables[POOLED]
        table = self.tables.get(course.entity)
        if table is None:
            table = self.tables[course.entity] = Table()
        table.reach(course.block)
        yield table
