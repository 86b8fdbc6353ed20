"""The stories that a rehearsal can tell."""

from __future__ import annotations

from enum import StrEnum

from rehearsal.webhooks import backlog


class Story(StrEnum):
    """What a rehearsal shows. Each starts from the broken revision."""

    GOOD = "good"
    SICK = "sick"
    TREACHEROUS = "treacherous"
    SLOW = "slow"
    EMPTY = "empty"
    FAILED_ONLY = "failed-only"

    @property
    def revision_name(self) -> str:
        """The revision of the sample ERP that this story releases."""
        return self.value if self in (Story.SICK, Story.TREACHEROUS, Story.SLOW) else "fixed"

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
        return "empty" if self is Story.EMPTY else "failed-only" if self is Story.FAILED_ONLY else "good"
