"""The state of a host, read in one call that changes nothing; and git queries about a revision."""

from __future__ import annotations

import textwrap
import time
from dataclasses import dataclass
from typing import Literal

from handlers.errors import Refused, TryAgain
from handlers.host import commands
from handlers.host.clock import Offset, offset, reading
from handlers.host.ssh import CommandResult, Shell
from handlers.host.state import HostState, parse_state
from handlers.release.phase import short

_MISSING = (
    "couldn't find remote ref",
    "not a git repository",
    "cannot change to",
    "No such remote",
    "does not appear",
)
"""Parts of git's error messages for which a retry cannot help: the operator must act first."""
AUTHOR_MAX = 24
"""Characters of an author's name."""
_TIMED_OUT = 124
"""The exit status of `timeout`."""
_LOCKED = 69
"""The exit status of a fetch when a lock of git is in the way. Its last line is a sentence."""
_OPERATION_RUNS = 75
"""The exit status of the examination when an operation runs on the host."""
_GRACE_SECONDS = 15
"""How much longer than its own timeout a command on a host may take."""


@dataclass(frozen=True, kw_only=True)
class UnitFacts:
    """The state of one unit, from its service manager."""

    name: str
    loaded: bool
    active_state: str
    main_pid: int | None
    process: str = ""
    """The main process by what no other one has: the boot, its pid, and its start; empty without one."""

    @property
    def active(self) -> bool:
        """Whether it runs or is starting."""
        return self.active_state in ("active", "activating", "reloading")


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """The state of one host."""

    host: str
    revision: str | None
    """The commit of the tree on disk. Which revision the processes run, only the probe can tell."""
    problem: str
    """Why the repository is not usable; empty when it is."""
    dirt: str
    """Local changes of tracked files, shortened; empty when the tree is clean, or was not compared."""
    switching_to: str | None
    """The target of an interrupted switch: the tree is not that of `revision`. The next switch fixes it."""
    remote_url: str
    free_bytes: int
    clock: Offset
    """How far the host's clock is ahead of ours."""
    units: tuple[UnitFacts, ...]
    state: HostState | None
    present: bool | None
    """Whether the requested revision is on the host; None when none was requested."""
    running: tuple[str, ...] = ()
    """The operations that hold or await the host's lock, by id."""
    denied: tuple[str, ...] = ()
    """The service commands that sudo refuses, such as `restart tsh-erp`; empty when they were not checked."""

    @property
    def clean(self) -> bool:
        """Whether the tree is exactly its revision."""
        return not self.dirt and self.switching_to is None

    def processes(self) -> dict[str, str]:
        """The main process of each unit that has one (`UnitFacts.process`)."""
        return {unit.name: unit.process for unit in self.units if unit.process}


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Whether a host can be prepared for a revision."""

    problem: str = ""
    """Why `prepare` would refuse it, in one sentence; empty when it would not."""
    skipped: str = ""
    """Why it was not examined: an operation runs there, which must not be disturbed."""


async def inspect(
    shell: Shell, revision: str | None = None, *, tree: Literal["content", "index", ""] = "index"
) -> HostFacts:
    """Read the state of the host, and whether it has *revision* (a full commit id). Raises TryAgain.

    *tree* is how local changes are found: `content` compares every file with the commit, `index` believes git's index
    (nothing for the strategy `releases`), and without it they are not looked for.
    """
    environment = shell.environment
    command = commands.inspect(environment.deploy, environment.services, revision, tree=tree)
    await shell.connect()
    sent = time.time()
    result = await shell.run(command)
    received = time.time()
    if not result.good:
        raise TryAgain(f"{shell.host.name} could not be inspected: {result.summary}")
    parts = _parts(result.stdout)
    return HostFacts(
        host=shell.host.name,
        revision=parts["revision"] or None,
        problem=parts["problem"],
        dirt=parts.get("dirt", ""),
        switching_to=parts["switching"] or None,
        remote_url=parts["remote"],
        free_bytes=int(parts["free"] or 0) * 1024,
        clock=_offset(shell, sent, received, parts.get("clock", ""), parts.get("clock_end", "")),
        units=_units(parts),
        state=parse_state(parts["state"]),
        running=tuple(parts["running"].split()),
        present=None if revision is None else parts["present"] == "yes",
    )


async def unit_facts(shell: Shell) -> tuple[UnitFacts, ...]:
    """The units of the host alone: a check of its health asks often. Raises TryAgain."""
    result = await shell.run(commands.show_units(shell.environment.services))
    if not result.good:
        raise TryAgain(f"{shell.host.name} could not be inspected: {result.summary}")
    return _units(_parts(result.stdout))


async def clock(shell: Shell) -> Offset:
    """How far the host's clock is ahead of ours. Raises TryAgain."""
    await shell.connect()
    sent = time.time()
    result = await shell.run(commands.clock())
    received = time.time()
    if not result.good:
        raise TryAgain(f"the clock of {shell.host.name} could not be read: {result.summary}")
    return _offset(shell, sent, received, result.stdout, result.stdout)


async def examine(shell: Shell, sha: str, *, fetched: bool) -> Examination:
    """Whether `prepare` would refuse the revision on this host; nothing that runs is changed. Raises TryAgain.

    With *fetched* the released branch has just been fetched on this host.
    """
    limit = shell.environment.ssh.operation_seconds
    fetch_seconds = None if fetched else round(limit)
    command = commands.examine(shell.environment.deploy, sha, fetch_seconds=fetch_seconds)
    result = await shell.run(command, limit=2 * limit)
    *details, sentence = [line for line in result.stdout.splitlines() if line.strip()] or [result.summary]
    if result.good:
        return Examination()
    if result.exit_status == _OPERATION_RUNS:
        return Examination(skipped=sentence)
    seen = textwrap.shorten(" ".join([*details, *result.stderr.split()]), 200, placeholder=" ...")
    for above in (" (above)", " (see above)"):
        sentence = sentence.replace(above, f" ({seen})" if seen else "")
    return Examination(problem=sentence or "it could not be examined")


async def denied(shell: Shell) -> tuple[str, ...]:
    """The service commands of a deploy that sudo refuses. They must be known before the workers are stopped."""
    command = commands.denied(shell.environment.services)
    return tuple((await shell.run(command)).stdout.splitlines()) if command is not None else ()


async def resolve(shell: Shell, revision: str) -> str:
    """The full commit id of *revision*, after a fetch. Raises Refused when it is not on the released branch."""
    deploy, host = shell.environment.deploy, shell.host.name
    branch = f"{deploy.remote}/{deploy.branch}"
    command = commands.commit_of(deploy, revision)
    limit = shell.environment.ssh.operation_seconds
    fetched = await shell.run(commands.fetch(deploy, round(limit)), limit=limit + _GRACE_SECONDS)
    if not fetched.good:
        raise _fetch_error(shell, fetched)
    resolved = await shell.run(command)
    if not resolved.good:
        raise Refused(
            f"there is no revision {revision!r} on {branch} (as {host} fetched it): "
            f"push it, or use another commit, branch or tag"
        )
    sha = resolved.stdout.strip()
    if not (await shell.run(commands.is_on_branch(deploy, sha))).good:
        raise Refused(
            f"revision {revision!r} ({short(sha)}) exists on {host} but is not on {branch}: "
            f"merge it first, or use another revision"
        )
    return sha


async def count_between(shell: Shell, before: str, after: str) -> tuple[int, int]:
    """The number of commits that only *before* has, and that only *after* has. Raises Refused."""
    result = await shell.run(commands.log_counts(shell.environment.deploy, before, after))
    if not result.good:
        raise _no_log(shell, before, after, result)
    lost, gained = result.stdout.split()
    return int(lost), int(gained)


async def commits_between(shell: Shell, before: str, after: str, limit: int = 50) -> list[str]:
    """The commits that differ between two revisions, newest first: `>` is only in *after*, `<` only in *before*.

    Each is one line: its short id, its author, and its subject.
    """
    result = await shell.run(commands.log_between(shell.environment.deploy, before, after, limit))
    if not result.good:
        raise _no_log(shell, before, after, result)
    return [_commit(line) for line in result.stdout.split("\n") if line]


def _commit(line: str) -> str:
    """`>4f2c9e1 Ada L: Fix the session`. Both are texts from outside: on one line, and the name is bounded."""
    id_, author, subject = ([*line.split("\x1f", 2), "", ""])[:3]
    name = textwrap.shorten(author, AUTHOR_MAX, placeholder="...")
    return " ".join(f"{id_} {name}: {subject}".split())


def _no_log(shell: Shell, before: str, after: str, result: CommandResult) -> Refused:
    return Refused(
        f"{shell.host.name} cannot list the commits from {short(before)} to {short(after)}: {result.summary}"
    )


def _fetch_error(shell: Shell, result: CommandResult) -> Refused | TryAgain:
    deploy = shell.environment.deploy
    sentence = f"{shell.host.name} cannot fetch {deploy.branch} from {deploy.remote}"
    if result.exit_status == _TIMED_OUT:
        seconds = shell.environment.ssh.operation_seconds
        return TryAgain(f"{sentence}: the git server did not answer within {seconds:g} s")
    if result.exit_status == _LOCKED and result.stdout.strip():
        return TryAgain(f"{sentence}: {result.stdout.strip().splitlines()[-1]}")
    sentence += f": {result.summary}"
    if any(word in result.stderr for word in _MISSING):
        return Refused(f"{sentence}; check deploy.directory, deploy.remote and deploy.branch")
    return TryAgain(sentence)


def _parts(text: str) -> dict[str, str]:
    parts = {}
    for part in text.split("\x01")[1:]:
        name, _, body = part.partition("\n")
        parts[name] = body.strip("\n")
    return parts


def _offset(shell: Shell, sent: float, received: float, first: str, last: str) -> Offset:
    try:
        return offset(sent, received, reading(first), reading(last))
    except ValueError as error:
        raise TryAgain(f"the clock of {shell.host.name} could not be read: {error}") from error


def _units(parts: dict[str, str]) -> tuple[UnitFacts, ...]:
    units = ((name.removeprefix("unit "), text) for name, text in parts.items() if name.startswith("unit "))
    return tuple(_unit(name, text) for name, text in units)


def _unit(name: str, text: str) -> UnitFacts:
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    pid = values.get("MainPID", "0")
    return UnitFacts(
        name=name,
        loaded=values.get("LoadState") == "loaded",
        active_state=values.get("ActiveState", "unknown"),
        main_pid=int(pid) if pid.isdigit() and pid != "0" else None,
        process=values.get("Process", ""),
    )
