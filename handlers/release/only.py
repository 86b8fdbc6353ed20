"""Which dead letters a person asks for: one of them, those of a type or of an error, or so many. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handlers.release.planned import PlannedEvent


@dataclass(frozen=True, kw_only=True)
class Only:
    """A choice among the dead letters that can be drained. Without any value it is all of them."""

    event: str = ""
    """The id of the only one."""
    entity: str = ""
    error: str = ""
    """A text in the error code, or in the error with its values masked; case does not matter."""
    limit: int = 0
    """At most so many, in the order of the drain; 0: no limit."""

    def __bool__(self) -> bool:
        return bool(self.event or self.entity or self.error or self.limit)

    @property
    def sentence(self) -> str:
        """The choice as its options, for people."""
        options = {"event": self.event, "entity": self.entity, "error": self.error and repr(self.error)}
        named = [f"--{name} {value}" for name, value in options.items() if value]
        return " ".join([*named, *([f"--limit {self.limit}"] if self.limit else [])])

    def choose(self, events: Sequence[PlannedEvent]) -> tuple[tuple[PlannedEvent, ...], dict[str, int]]:
        """The events that are asked for, in their order, and the number of the others by reason."""
        matching = tuple(event for event in events if self._asks_for(event))
        chosen = matching[: self.limit] if self.limit else matching
        others = {
            f"not asked for ({self.sentence})": len(events) - len(matching),
            f"more than --limit {self.limit}": len(matching) - len(chosen),
        }
        return chosen, {reason: count for reason, count in others.items() if count}

    def _asks_for(self, event: PlannedEvent) -> bool:
        if self.event and event.id != self.event:
            return False
        if self.entity and event.entity.value != self.entity:
            return False
        error = self.error.casefold()
        return error in event.error_code.casefold() or error in event.fingerprint.casefold()


ALL = Only()
"""All that can be drained."""
