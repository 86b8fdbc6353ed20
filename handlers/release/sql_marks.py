"""What the statements of an SQL migration do to the revision that runs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple


class Mark(StrEnum):
    """What a migration does to the revision before it."""

    EXPAND = "expand"
    """That one goes on working."""
    CONTRACT = "contract"
    """That one does not, or data is lost."""
    UNKNOWN = "unknown"


class Effect(NamedTuple):
    """What one statement does, and why it is not expand."""

    mark: Mark
    why: str = ""


_E, _C, _U = Mark.EXPAND, Mark.CONTRACT, Mark.UNKNOWN
_NOISE = re.compile(
    r"--[^\n]*|/\*.*?\*/|(?P<tag>\$\w*\$).*?(?P=tag)|'(?:[^']|'')*'", re.DOTALL
)  # fmt: skip
"""Comments, and literals: what they contain is no statement."""
_ESCAPES = re.compile(r"\bE'", re.IGNORECASE)
"""Where a backslash may hide the end of a literal, and with it a statement."""
_IGNORED = re.compile(
    r"(?:BEGIN|COMMIT|END|START TRANSACTION)\b|SET (?:LOCAL |SESSION )?(?:LOCK_TIMEOUT|STATEMENT_TIMEOUT)\b"
)
_STATEMENTS: tuple[tuple[str, Effect], ...] = (
    (r"CREATE (?:UNLOGGED )?TABLE\b(?!.* AS )", Effect(_E)),
    (r"CREATE UNIQUE INDEX\b", Effect(_U, "makes an index unique")),
    (r"CREATE INDEX\b", Effect(_E)),
    (r"CREATE (?:SEQUENCE|SCHEMA|EXTENSION|VIEW|MATERIALIZED VIEW|TYPE)\b", Effect(_E)),
    (r"ALTER TYPE \S+ ADD VALUE\b", Effect(_E)),
    (r"(?:COMMENT ON|GRANT)\b", Effect(_E)),
    (r"DROP (?:INDEX|TRIGGER|POLICY|RULE)\b", Effect(_U, "drops an index or a trigger")),
    (r"DROP (?:MATERIALIZED )?(\w+)", Effect(_C, "drops a {}")),
    (r"TRUNCATE\b", Effect(_C, "empties a table")),
    (r"DELETE\b", Effect(_C, "deletes rows")),
    (r"REVOKE\b", Effect(_C, "takes rights away")),
    (r"ALTER .*\bRENAME\b", Effect(_C, "renames")),
    (r"UPDATE\b", Effect(_U, "changes rows")),
)
"""The first one that fits counts. What fits none is unknown."""
_ACTIONS: tuple[tuple[str, Effect], ...] = (
    (r"ADD (?:CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN|EXCLUDE)\b", Effect(_U, "adds a constraint")),
    (r"ADD .*\b(?:REFERENCES|UNIQUE|CHECK|PRIMARY KEY)\b", Effect(_U, "adds a constraint")),
    (r"ADD (?!.*\b(?:DEFAULT|GENERATED)\b).*\bNOT NULL\b", Effect(_C, "adds a required column")),
    (r"ADD (?:COLUMN )?(?:IF NOT EXISTS )?[\w\".]+ \w", Effect(_E)),
    (r"DROP CONSTRAINT\b", Effect(_U, "drops a constraint")),
    (r"DROP\b", Effect(_C, "drops a column")),
    (r"ALTER (?:COLUMN )?\S+ (?:SET DATA )?TYPE\b", Effect(_C, "changes the type of a column")),
    (r"ALTER (?:COLUMN )?\S+ SET NOT NULL\b", Effect(_C, "makes a column required")),
    (r"RENAME\b", Effect(_C, "renames")),
)
"""The same of the parts of an ALTER TABLE."""
_ALTER_TABLE = re.compile(r"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?[\w\".]+ (?P<actions>.*)")


def of_sql(text: str) -> Iterator[Effect]:
    """The effect of each statement."""
    if _ESCAPES.search(text):
        yield Effect(_U, "has a string with escapes")
    for statement in _NOISE.sub(_without, text).split(";"):
        plain = " ".join(statement.split()).upper().replace("CREATE OR REPLACE", "REPLACE")
        if plain and not _IGNORED.match(plain):
            yield from _of_statement(plain)


def _without(noise: re.Match[str]) -> str:
    """Nothing for a comment, an empty literal for a literal."""
    return " " if noise[0].startswith(("--", "/*")) else " '' "


def _of_statement(plain: str) -> Iterator[Effect]:
    if found := _ALTER_TABLE.match(plain):
        for action in _parts(found["actions"]):
            yield _first(action, _ACTIONS, "alters a table in a way that is not known")
    else:
        words = re.sub(r"[^A-Z ]", "", " ".join(plain.split()[:2])).lower()
        yield _first(plain, _STATEMENTS, f"has a statement that is not known ({words})")


def _first(text: str, rules: tuple[tuple[str, Effect], ...], otherwise: str) -> Effect:
    for pattern, effect in rules:
        if found := re.match(pattern, text):
            what = found[1].lower() if found.groups() else ""
            return effect._replace(why=effect.why.format(what))
    return Effect(_U, otherwise)


def _parts(actions: str) -> Iterator[str]:
    """The actions of an ALTER TABLE: split at commas that are in no brackets."""
    depth, part = 0, ""
    for character in actions:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            yield part.strip()
            part = ""
        else:
            part += character
    yield part.strip()
