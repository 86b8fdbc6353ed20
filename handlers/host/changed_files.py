"""The files that differ between two revisions, read from the git repository of a host. It changes nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from handlers.errors import TryAgain
from handlers.host import commands
from handlers.host.ssh import Shell
from handlers.release.schema_changes import TEXT_MAX, Change, FileChange

FILES_MAX = 60
"""The texts of so many new files are read; more are not recognized."""
_LINE = re.compile(r"(?P<change>[AMD])\t(?P<path>[^\"\t].*)")


async def changed_files(shell: Shell, before: str, after: str, patterns: Sequence[str]) -> list[Change]:
    """What *after* adds, changes and removes among the files of these patterns, with the text of what is new.

    Raises TryAgain when it could not be read.
    """
    if not patterns or before == after:
        return []
    deploy = shell.environment.deploy
    listed = await shell.run(commands.changed_names(deploy, before, after, patterns))
    if not listed.good:
        raise TryAgain(f"{shell.host.name} cannot compare the migrations: {listed.summary}")
    found = [_change(line) for line in listed.stdout.splitlines() if line]
    new = [change for change in found if change.change is FileChange.ADDED][:FILES_MAX]
    texts = dict(
        zip(
            [change.path for change in new],
            await asyncio.gather(*(_text(shell, after, change.path) for change in new)),
            strict=True,
        )
    )
    return [
        Change(path=change.path, change=change.change, text=texts.get(change.path))
        for change in found
        if not change.path.endswith("/__init__.py")
    ]


def _change(line: str) -> Change:
    """One line of git. A name that it had to quote, or a change of another kind, is one that nobody recognizes."""
    found = _LINE.fullmatch(line)
    if found is None:
        return Change(path=line.partition("\t")[2] or line, change=FileChange.CHANGED, text=None)
    return Change(path=found["path"], change=FileChange(found["change"]), text=None)


async def _text(shell: Shell, revision: str, path: str) -> str | None:
    shown = await shell.run(commands.file_at(shell.environment.deploy, revision, path))
    if not shown.good or len(shown.stdout) > TEXT_MAX or "\ufffd" in shown.stdout:
        return None
    return shown.stdout
