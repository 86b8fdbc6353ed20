"""What is as fast as a rehearsal: the waits that a runbook second measures, in the real seconds of the machine."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.queue.settle import BACKOFF_CAP_SECONDS, BACKOFF_SECONDS, WAIT_SECONDS_MAX
from rehearsal.webhooks.backlog import SLOWEST_SECONDS

SPEED = 60.0
"""Runbook seconds for each real second: the watch of thirty minutes takes thirty seconds."""
DEADLINE_SECONDS = 60.0
"""The age at which an unfinished live event counts as failed: `watch.late_seconds`, in runbook seconds."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The limits of a rehearsal at *speed*. A machine is no faster in a rehearsal: each has a floor."""

    speed: float = SPEED

    @property
    def late_seconds(self) -> float:
        """`watch.late_seconds` of the environment. A busy machine needs a moment for an event."""
        return self.real(DEADLINE_SECONDS, at_least=2)

    @property
    def backoff_seconds(self) -> float:
        """The workers' wait before the first retry of an event: two minutes."""
        return self.real(BACKOFF_SECONDS)

    @property
    def backoff_cap_seconds(self) -> float:
        """Their longest wait before a retry."""
        return self.real(BACKOFF_CAP_SECONDS, at_least=self.backoff_seconds)

    @property
    def wait_seconds(self) -> float:
        """How long they wait for a parent of which no event is in the queue. A restart of the database takes longer
        than one second.
        """
        return self.real(WAIT_SECONDS_MAX, at_least=10)

    @property
    def slowest_seconds(self) -> float:
        """How long the slowest webhooks of the day before took, in runbook seconds. A busy machine may need 4.5 s
        for one, and the gate holds the released revision against that day. That is below its deadline.
        """
        return max(SLOWEST_SECONDS, 4.5 * self.speed)

    def real(self, runbook_seconds: float, *, at_least: float = 1) -> float:
        """The real seconds in which *runbook_seconds* pass, and never below *at_least*."""
        return round(max(at_least, runbook_seconds / self.speed), 3)
