"""What a migration of the ERP does to the revision that runs: expand, contract, or unknown. Pure.

Expand: the revision before goes on working with the new schema. Contract: it does not, or data is lost, so the
release is not taken back automatically. What is not recognized is unknown; in doubt nothing is called expand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from handlers.release import alembic_marks
from handlers.release.sql_marks import Effect, Mark, of_sql
from handlers.release.stored import known_fields

__all__ = ["Change", "FileChange", "Mark", "Migration", "mark"]

TEXT_MAX = 65_536
"""A longer file is not read."""


class FileChange(StrEnum):
    """What happened to a file between the two revisions, as git says it."""

    ADDED = "A"
    CHANGED = "M"
    REMOVED = "D"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A file with a migration that differs between the two revisions."""

    path: str
    change: FileChange
    text: str | None
    """Its text in the new revision; None when it is too long, or is no text."""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """A migration in the plan."""

    path: str
    mark: Mark
    why: str
    """What makes it contract or unknown; empty when it is expand."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Migration:
        """From the ledger. A mark that only a newer program knows is unknown."""
        values = {"path": "", "why": ""} | known_fields(cls, stored)
        name = values.pop("mark", Mark.UNKNOWN)
        return cls(mark=Mark(name) if name in list(Mark) else Mark.UNKNOWN, **values)

    @property
    def sentence(self) -> str:
        """For people: `x.py (drops a column)`."""
        return f"{self.path} ({self.why})" if self.why else self.path


def mark(changes: Iterable[Change]) -> tuple[Migration, ...]:
    """The migrations with their marks, in the order of their paths."""
    return tuple(_mark(change) for change in sorted(changes, key=lambda change: change.path))


def one_way(migrations: Iterable[Migration]) -> tuple[Migration, ...]:
    """Those that the revision before does not survive."""
    return tuple(each for each in migrations if each.mark is Mark.CONTRACT)


def _mark(change: Change) -> Migration:
    path = "".join(character if character.isprintable() else "?" for character in change.path)[:200]
    effects = list(_effects(change))
    for wanted in (Mark.CONTRACT, Mark.UNKNOWN):
        reasons = dict.fromkeys(effect.why for effect in effects if effect.mark is wanted)
        if reasons:
            return Migration(path=path, mark=wanted, why=", ".join(list(reasons)[:3]))
    if not effects:
        return Migration(path=path, mark=Mark.UNKNOWN, why="no statement was recognized")
    return Migration(path=path, mark=Mark.EXPAND, why="")


def _effects(change: Change) -> Iterator[Effect]:
    if change.change is FileChange.REMOVED:
        yield Effect(Mark.UNKNOWN, "it was removed, and the schema that it made stays")
    elif change.change is FileChange.CHANGED:
        yield Effect(Mark.UNKNOWN, "it was changed after it had been written")
    elif change.text is None:
        yield Effect(Mark.UNKNOWN, "it is too long to be read, or no text")
    elif re.search(r"\.sql$", change.path, re.IGNORECASE):
        yield from of_sql(change.text)
    elif change.path.endswith(".py"):
        yield from alembic_marks.of_python(change.text)
    else:
        yield Effect(Mark.UNKNOWN, "neither SQL nor Python")
