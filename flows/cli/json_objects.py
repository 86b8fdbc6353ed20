"""What --json prints, where that is not a model of the handlers: the objects that docs/json.md describes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

from handlers.release.approval import Given
from handlers.release.phase import Phase, Release
from handlers.release.pulled import MergedPull
from handlers.release.schema_changes import Migration


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a release stands at the end of a command that runs, continues or ends it."""

    release: str
    """Its id."""
    environment: str
    """Its name."""
    outcome: Phase | None
    """Its phase; null when the command has ended before the release did."""
    exit_code: int
    """The exit code of a release in this phase."""
    reason: str
    """The sentence of the newest conclusion, or why the command has ended."""
    from_: str
    """The revision before, full hash."""
    to: str
    """The released revision, full hash."""
    report: str | None
    """The path of the newest verification report; null without one."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A release that goes on by itself, because the command was given with `--detach`."""

    release: str
    """Its id."""
    log: str
    """The path of its controller's log."""


@dataclass(frozen=True, kw_only=True)
class Listed(Release):
    """One release of the history."""

    kind: str
    """`release`, or the phase that was started by hand: `canary`, `drain`, `watch`."""
    asked_because: str
    """The reason that its requester gave."""
    approvals: tuple[Given, ...]
    """What people decided about its plan."""
    carried: bool | None
    """Whether a living controller runs it; null when it needs none."""
    uncarried_since: datetime | None
    """Since when nobody runs it."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The newest releases of an environment."""

    environment: str
    """Its name."""
    releases: tuple[Listed, ...]
    """Newest first."""


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """The verification report as files."""

    release: str
    """Its id."""
    files: dict[str, Path]
    """The path of each file by its kind: `html`, `md`, `json`."""


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """A pull request as it stands. `release --through` prints it before the object of the release."""

    environment: str
    """The environment whose branch it merges into."""
    number: int | None
    """Its number; null where there is none yet."""
    url: str
    """Its page; empty where there is none yet."""
    state: str
    """`none`, `open`, `closed` or `merged`."""
    head: str
    """The commit that is merged, full hash."""
    plan: str
    """The hash of its plan; empty where nothing is to be merged."""
    commits: tuple[str, ...] = ()
    """One line for each commit that the branch does not have, newest first."""
    migrations: tuple[Migration, ...] = ()
    """The ERP's own migrations among the changed files."""
    missing: tuple[str, ...] = ()
    """What is missing before the merge, one sentence each."""
    merged: MergedPull | None = None
    """What was made of it; null before the merge."""
    exit_code: int
    """The exit code of the command."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A command that has failed. The sentence is on stderr too."""

    error: str
    """What happened, where, and what to type."""
    exit_code: int
    """The exit code of the command."""


def json_name(name: str) -> str:
    """The key of a field in JSON: `from` is a keyword of Python, so the field is `from_`."""
    return name.removesuffix("_")


def keyed(value: Outcome | Started) -> dict[str, object]:
    """The object by its keys in JSON."""
    return {json_name(each.name): getattr(value, each.name) for each in fields(value)}
