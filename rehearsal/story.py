"""The stories that a rehearsal can tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rehearsal.webhooks import backlog
from rehearsal.webhooks.traffic import Mix


class Story(StrEnum):
    """What a rehearsal shows. Each starts from the broken revision."""

    GOOD = "good"
    SICK = "sick"
    TREACHEROUS = "treacherous"
    SLOW = "slow"
    EMPTY = "empty"
    FAILED_ONLY = "failed-only"
    BLIP = "blip"
    STALL = "stall"
    ONE_TYPE = "one-type"
    HOPELESS = "hopeless"
    LATE = "late"
    KNOWN = "known"

    @property
    def plot(self) -> Plot:
        """How the story goes."""
        return PLOTS[self]

    @property
    def exit_code(self) -> int:
        """The exit code with which the release must end."""
        return self.plot.exit_code

    @property
    def revision_name(self) -> str:
        """The revision of the sample ERP that this story releases."""
        return self.plot.revision

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong with the revision: whatever fails is the fault of something else."""
        return self.revision_name == "fixed"

    @property
    def goes_back(self) -> bool:
        """Whether the release is rolled back when nothing else breaks."""
        return not self.is_good

    @property
    def variant(self) -> backlog.Variant:
        """What is in the queue at the start."""
        return self.plot.backlog


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What happens in the world while the watch lasts. It comes by the clock, never by chance."""

    minute: float
    """The minute of the watch in which it begins."""
    blip_seconds: float | None = None
    """For so many runbook seconds the database refuses most rows, and a retry cures it. Without it the released
    revision sees it as a cue (`rehearsal.cues`), and does not stand it.
    """


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One story: what is released, into what, and how it must end."""

    what: str
    exit_code: int
    revision: str = "fixed"
    backlog: backlog.Variant = "good"
    mix: Mix = "everyday"
    turn: Turn | None = None


PLOTS = {
    Story.GOOD: Plot(what="a good revision: everything is drained, the watch is healthy", exit_code=0),
    Story.SICK: Plot(what="/health answers 503", exit_code=2, revision="sick"),
    Story.TREACHEROUS: Plot(
        what="healthy, a good canary, but most items fail", exit_code=2, revision="treacherous"
    ),
    Story.SLOW: Plot(what="workers complete nothing", exit_code=2, revision="slow"),
    Story.EMPTY: Plot(
        what="no dead letter: a synthetic event tests the workers", exit_code=0, backlog="empty"
    ),
    Story.FAILED_ONLY: Plot(what="only failed events: held", exit_code=4, backlog="failed-only"),
    Story.BLIP: Plot(
        what="the database refuses most rows for 90 seconds: retried, succeeds",
        exit_code=0,
        turn=Turn(minute=10, blip_seconds=90),
    ),
    Story.STALL: Plot(
        what="from minute 3 of the watch the workers take events and never finish",
        exit_code=2,
        revision="stall",
        turn=Turn(minute=3),
    ),
    Story.ONE_TYPE: Plot(
        what="every payment dies, everything else is fine", exit_code=2, revision="one_type"
    ),
    Story.HOPELESS: Plot(
        what="4 of 58 dead letters cannot be read by any revision: succeeds",
        exit_code=0,
        backlog="hopeless",
    ),
    Story.LATE: Plot(
        what="good, and from minute 20 of the watch everything dies",
        exit_code=2,
        revision="late",
        turn=Turn(minute=20),
    ),
    Story.KNOWN: Plot(
        what="each record succeeds once, then all its webhooks die",
        exit_code=2,
        revision="known",
        mix="recurring",
    ),
}
