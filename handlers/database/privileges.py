"""What the database user may do: asked by name before any work, because PostgreSQL does not always refuse.

Row security hides rows without an error: the queue is empty then. A read-only database lets every read pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Row

from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction

_SQL = queries(__name__)
_NAMES_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Need:
    """A table, and what a program does with it."""

    table: str
    privileges: str
    """`SELECT`, `INSERT`, `UPDATE` and `DELETE`, separated by blanks."""
    columns: tuple[str, ...] = ()
    """Columns that `runbook db adopt` adds."""
    optional: bool = False
    """The program works without the table. If it exists, the privileges are needed all the same."""


@dataclass(frozen=True, kw_only=True)
class Obstacles:
    """Why a program could not do its work; all empty when it could."""

    read_only: str = ""
    """A sentence. Nobody has to act: a failover or a full disk passes."""
    denied: tuple[str, ...] = ()
    """Sentences; somebody must act."""

    def sentence(self) -> str:
        """All obstacles in one sentence; empty without any."""
        return "; ".join(filter(None, (self.read_only, *self.denied)))


async def obstacles(bind: Bind, needs: Sequence[Need]) -> Obstacles:
    """Ask what this user may not do of *needs*. Raises DatabaseDown."""
    async with transaction(bind) as tx:
        session = (await tx.execute(_SQL["session"])).one()
        parameters = {
            "names": [need.table for need in needs],
            "privileges": [need.privileges for need in needs],
            "columns": [" ".join(need.columns) for need in needs],
        }
        relations = (await tx.execute(_SQL["relations"], parameters)).all()
    read_only = ""
    if session.is_read_only:
        why = "it is a standby" if session.is_standby else "default_transaction_read_only is on"
        read_only = f"the database is read-only: {why}"
    return Obstacles(
        read_only=read_only, denied=tuple(_sentences(session.user_name, zip(needs, relations, strict=True)))
    )


def _sentences(user: str, found: Iterable[tuple[Need, Row[tuple[object, ...]]]]) -> Iterable[str]:
    missing: list[str] = []
    hidden: dict[str, None] = {}
    denied: dict[str, list[str]] = {}
    sequences: list[str] = []
    filtered: list[str] = []
    outdated: list[str] = []
    for need, row in found:
        if not row.exists:
            missing += [] if need.optional else [need.table]
        elif not row.is_reachable:
            hidden[row.schema_name] = None
        else:
            if row.missing_privileges:
                denied.setdefault(", ".join(row.missing_privileges), []).append(need.table)
            sequences += row.missing_sequences
            filtered += [need.table] if row.is_filtered else []
            outdated += [f"{need.table} ({_some(row.missing_columns)})"] if row.missing_columns else []
    if filtered:
        cure = f"run ALTER ROLE {user} BYPASSRLS, or ALTER TABLE … DISABLE ROW LEVEL SECURITY"
        yield f"row level security hides rows of {_some(filtered)} from the user {user}: {cure}"
    for schema in hidden:
        cure = f"run GRANT USAGE ON SCHEMA {schema} TO {user}, or add it to search_path"
        yield f"the user {user} does not see the schema {schema}: {cure}"
    for privileges, tables in denied.items():
        cure = f"run GRANT {privileges} ON {', '.join(tables)} TO {user}"
        yield f"the user {user} may not {privileges} on {_some(tables)}: {cure}"
    if sequences:
        cure = f"run GRANT USAGE ON SEQUENCE {', '.join(sequences)} TO {user}"
        yield f"the user {user} may not use {_some(sequences)}: {cure}"
    if missing:
        yield f"there is no table {_some(missing)}: is this the ERP's database, and was `runbook db adopt` run?"
    if outdated:
        yield f"columns are missing in {_some(outdated)}: run `runbook db adopt`"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
