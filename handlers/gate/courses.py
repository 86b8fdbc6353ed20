"""One admitted item on its way, and what is remembered of its record."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.gate.parameters import Parameters


@dataclass(slots=True)
class Course:
    """One item that a worker of the released revision took. What is None has not happened."""

    id: str
    entity: str
    key: str
    live: bool
    admitted: float
    block: int
    clock: float
    """Since when it could complete: its admission, or when it was woken."""
    counted: bool = False
    """Whether it is a unit of evidence."""
    promotes: bool = False
    """Whether it is a unit of the promotion: a record once in ten minutes."""
    backoff: float = 0.0
    """How long it was to wait between its attempts: nobody has it then."""
    back: bool = False
    """Whether a worker gave it back, and none has taken it since."""
    was_back: bool = False
    waiting_since: float | None = None
    parent: str = ""
    ended: float | None = None
    good: bool = False
    bad_at: float | None = None
    hard_at: float | None = None
    waited_at: float | None = None
    """When its wait for a parent became a failure."""
    known: bool = False
    """Whether the last error that it met is one that its type had the day before."""

    @property
    def settled(self) -> bool:
        """Whether its end is known, or that it has failed."""
        return self.ended is not None or self.bad_at is not None

    def failed_by(self, now: float, parameters: Parameters) -> bool:
        """Whether it has failed, as far as is known at *now*."""
        if self.bad_at is not None:
            return self.bad_at <= now
        runs = self.ended is None and self.waiting_since is None
        return runs and now - self.clock > parameters.deadline_s


@dataclass(slots=True)
class Record:
    """What is remembered of one record."""

    last: Course | None = None
    """Its last unit."""
    failed: Course | None = None
    """The unit that failed, while the record has not recovered."""
    promotion: float | None = None
    """When it last became a unit of the promotion."""
    touched: float = float("-inf")
    """The last moment of which something was noted: a fact from before then would have changed it."""

    def note_failure(self, now: float, parameters: Parameters) -> None:
        """Put the record into the failed state if its last unit has failed by *now*."""
        if self.failed is None and self.last is not None and self.last.failed_by(now, parameters):
            self.failed = self.last

    def counts(self, at: float, parameters: Parameters) -> bool:
        """Whether an item admitted at *at* is a unit. It is settled now, before its end is known."""
        self.note_failure(at, parameters)
        if self.failed is not None:
            return at - self.failed.admitted >= parameters.unit_failed_s
        return self.last is None or at - self.last.admitted >= parameters.unit_s
