"""The keys of an environment file about the hours after a release: when it is looked at, and who acts on a breach."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from handlers.environment.section import Seconds, Section

CHECKS_MAX = 2000
"""More checks than this nobody means: each is a row in the ledger."""


class Guard(Section):
    """The checks of a release after its end."""

    active: bool = True
    """Whether a release that succeeds is looked at afterwards."""
    roll_back: bool = True
    """Whether a breach takes it back. Without it a breach only pages."""
    every_seconds: tuple[Seconds, ...] = Field(default=(300, 900, 3600), min_length=1)
    """The pause between two checks in each stretch of time."""
    until_seconds: tuple[Seconds, ...] = Field(default=(3600, 14_400, 86_400), min_length=1)
    """When each of these stretches ends, from the end of the release on."""
    report: bool = True
    """Whether the report is written again at the end, compared with the day before the release."""

    @model_validator(mode="after")
    def _is_a_schedule(self) -> Self:
        if len(self.every_seconds) != len(self.until_seconds):
            raise ValueError(
                f"every_seconds has {len(self.every_seconds)} numbers and until_seconds {len(self.until_seconds)}: "
                "each stretch of time needs both"
            )
        if any(
            later <= earlier
            for earlier, later in zip(self.until_seconds, self.until_seconds[1:], strict=False)
        ):
            raise ValueError("until_seconds must grow: each stretch begins where the last one ends")
        if (
            sum(
                1 + until / every for every, until in zip(self.every_seconds, self.until_seconds, strict=True)
            )
            > CHECKS_MAX
        ):
            raise ValueError(f"more than {CHECKS_MAX} checks: make every_seconds longer")
        return self

    def due_after(self) -> tuple[float, ...]:
        """When each check is due, in runbook seconds after the end of the release; the last one at the very end."""
        due, at = list[float](), 0.0
        for every, until in zip(self.every_seconds, self.until_seconds, strict=True):
            while at + every <= until:
                at += every
                due.append(at)
        if at < self.until_seconds[-1]:
            due.append(self.until_seconds[-1])
        return tuple(due)
