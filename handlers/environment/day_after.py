"""The keys of an environment file about the day after: the checks of a release, and healing."""

from __future__ import annotations

from typing import Annotated, Self

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


Days = Annotated[float, Field(gt=0, le=86_400 * 31)]
"""A time of up to a month, in seconds."""


class Heal(Section):
    """What is healed between the releases, every 15 minutes."""

    active: bool = True
    """Whether healing does anything: leases, dead letters, alarms."""
    dead_letters: bool = True
    """Whether it sends dead letters back. Without it they wait for a release, or for `runbook drain`."""
    after_seconds: Days = 86_400
    """A letter must have been dead for so long, also after healing has tried it in vain."""
    tries_max: Annotated[int, Field(ge=1, le=20)] = 3
    """Healing tries one letter so often. Then a person decides."""
    batch_size_max: Annotated[int, Field(ge=1, le=5000)] = 100
    """The first batch is one letter of each type; batches double up to this size."""
    settle_seconds: Seconds = 1800
    """If a batch has not settled after this time, its open letters count as failed and become dead letters again."""
    run_seconds: Annotated[float, Field(gt=0, le=600)] = 120
    """One run sends and follows batches for so long. The next run judges what is still out."""
    pause_seconds: Days = 86_400
    """After a bad batch letters of that type or error rest for so long; each further time twice as long."""
