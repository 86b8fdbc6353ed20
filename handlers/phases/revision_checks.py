"""The checks of the revision to release: it is on the branch, its direction in history, and each host can take it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from handlers.errors import Refused, RunbookError, TryAgain
from handlers.host.changed_files import changed_files
from handlers.host.facts import commits_between, count_between, examine, resolve
from handlers.host.ssh import Shell
from handlers.release.phase import short
from handlers.release.planned import HISTORY, Check
from handlers.release.schema_changes import Mark, Migration, mark

SHOWN_MAX = 5
"""So many migrations of a kind are named in a check; the plan lists all."""


@dataclass(kw_only=True)
class RevisionLook:
    """A requested revision as the hosts know it."""

    checks: list[Check] = field(default_factory=list)
    wanted: str = ""
    """Its whole commit id; empty when it is unknown."""
    commits: tuple[str, ...] = ()
    """One line for each commit between it and what runs, newest first."""
    migrations: tuple[Migration, ...] = ()
    """The ERP's own migrations among them."""


async def look_at_revision(shells: Sequence[Shell], revision: str, current: str) -> RevisionLook:
    """Resolve *revision* on the first host, compare it with *current*, and examine it on every host.

    Each host fetches the branch; nothing that runs is changed. *shells* are the hosts that can be reached.
    """
    look = RevisionLook()
    first = shells[0]
    try:
        wanted = look.wanted = await resolve(first, revision)
    except (Refused, TryAgain) as error:
        look.checks.append(Check(name="revision", good=False, sentence=str(error)))
        return look
    if wanted == current:
        sentence = f"revision {revision} is {short(wanted)}, which runs already: name another, or use "
        sentence += "`runbook drain` or `runbook watch`"
        look.checks.append(Check(name="revision", good=False, sentence=sentence))
        return look
    _, *examined = await asyncio.gather(
        _compare(look, first, revision, current),
        *(_examine(shell, wanted, fetched=shell is first) for shell in shells),
    )
    found = [check for check in examined if check is not None]
    if not found:
        sentence = f"{short(wanted)} can be written exactly on every host"
        found = [Check(name="tree", good=True, sentence=sentence)]
    look.checks += found
    return look


async def _compare(look: RevisionLook, shell: Shell, revision: str, current: str) -> None:
    """Add the commits between the two revisions, and the checks of the direction."""
    try:
        lost, gained = await count_between(shell, current, look.wanted)
        look.commits = tuple(await commits_between(shell, current, look.wanted))
        patterns = shell.environment.migrations.paths
        look.migrations = mark(await changed_files(shell, current, look.wanted, patterns))
    except (Refused, TryAgain) as error:
        look.checks.append(Check(name="revision", good=False, sentence=str(error)))
        return
    look.checks += _history_checks(revision, current, look.wanted, lost, gained)
    look.checks += _migration_checks(look.migrations)


def _history_checks(revision: str, current: str, wanted: str, lost: int, gained: int) -> list[Check]:
    """The revision, and a warning when commits that run now would be gone."""
    sentence = f"{revision} is {short(wanted)}, {_commits(gained)} ahead of {short(current)}"
    checks = [Check(name="revision", good=True, sentence=sentence)]
    if lost and not gained:
        sentence = (
            f"{short(wanted)} is OLDER than what runs: it goes {_commits(lost)} back from {short(current)}"
        )
        checks = [Check(name=HISTORY, good=True, warns=True, sentence=sentence)]
    elif lost:
        sentence = (
            f"{short(wanted)} does not contain what runs: {_commits(lost)} of {short(current)} would be gone"
        )
        checks.append(Check(name=HISTORY, good=True, warns=True, sentence=sentence))
    return checks


def _migration_checks(migrations: Sequence[Migration]) -> list[Check]:
    """A warning for what the revision that runs may not survive; nothing where there is no migration."""
    if not migrations:
        return []
    parts = []
    for wanted, follows in (
        (Mark.CONTRACT, ": a breach holds the release instead of taking it back"),
        (Mark.UNKNOWN, ": look at it before the start"),
        (Mark.EXPAND, ""),
    ):
        if found := [each.sentence for each in migrations if each.mark is wanted]:
            more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
            parts.append(f"{len(found)} {wanted}: {', '.join(found[:SHOWN_MAX])}{more}{follows}")
    warns = any(each.mark is not Mark.EXPAND for each in migrations)
    return [Check(name="migrations", good=True, warns=warns, sentence="; ".join(parts))]


async def _examine(shell: Shell, sha: str, *, fetched: bool) -> Check | None:
    """What would keep this host from taking the revision; None when nothing would."""
    name = shell.host.name
    try:
        found = await examine(shell, sha, fetched=fetched)
    except RunbookError as error:
        return Check(name=name, good=False, sentence=str(error))
    if found.skipped:
        return Check(name=name, good=True, warns=True, sentence=f"{name}: {found.skipped}")
    if found.problem:
        return Check(name=name, good=False, sentence=f"{name}: {found.problem}")
    return None


def _commits(count: int) -> str:
    return f"{count} commit{'' if count == 1 else 's'}"
