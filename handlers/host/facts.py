"""The state of a host, read in one call that changes nothing; and git queries about a revision."""

from __future__ import annotations

import time
from dataclasses import dataclass

from handlers.errors import Refused, TryAgain
from handlers.host import commands
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


@dataclass(frozen=True, kw_only=True)
class UnitFacts:
    """The state of one unit, from its service manager."""

    name: str
    loaded: bool
    active_state: str
    main_pid: int | None

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
    """Local changes of tracked files, shortened; empty when the tree is clean."""
    switching_to: str | None
    """The target of an interrupted switch: the tree is not that of `revision`. The next switch fixes it."""
    remote_url: str
    free_bytes: int
    clock_skew_seconds: float
    """How far the host's clock is ahead of ours (negative: behind), with a resolution of one second."""
    units: tuple[UnitFacts, ...]
    state: HostState | None
    present: bool | None
    """Whether the requested revision is on the host; None when none was requested."""
    denied: tuple[str, ...] = ()
    """The service commands that sudo refuses, such as `restart tsh-erp`; empty when they were not checked."""

    @property
    def clean(self) -> bool:
        """Whether the tree is exactly its revision."""
        return not self.dirt and self.switching_to is None

    def pids(self) -> dict[str, int]:
        """The main process of each unit that has one."""
        return {unit.name: unit.main_pid for unit in self.units if unit.main_pid}


async def inspect(shell: Shell, revision: str | None = None) -> HostFacts:
    """Read the state of the host, and whether it has *revision* (a full commit id). Raises TryAgain."""
    environment = shell.environment
    command = commands.inspect(environment.deploy, environment.services, revision)
    before = time.time()
    result = await shell.run(command)
    if not result.good:
        raise TryAgain(f"{shell.host.name} could not be inspected: {result.summary}")
    parts = _parts(result.stdout)
    clock = float(parts["clock"] or 0) + 0.5
    return HostFacts(
        host=shell.host.name,
        revision=parts["revision"] or None,
        problem=parts["problem"],
        dirt=parts.get("dirt", ""),
        switching_to=parts["switching"] or None,
        remote_url=parts["remote"],
        free_bytes=int(parts["free"] or 0) * 1024,
        clock_skew_seconds=_skew(clock, before, time.time()),
        units=tuple(
            _unit(name.removeprefix("unit "), text)
            for name, text in parts.items()
            if name.startswith("unit ")
        ),
        state=parse_state(parts["state"]),
        present=None if revision is None else parts["present"] == "yes",
    )


async def denied(shell: Shell) -> tuple[str, ...]:
    """The service commands of a deploy that sudo refuses. They must be known before the workers are stopped."""
    command = commands.denied(shell.environment.services)
    return tuple((await shell.run(command)).stdout.splitlines()) if command is not None else ()


async def resolve(shell: Shell, revision: str) -> str:
    """The full commit id of *revision*, after a fetch. Raises Refused when it is not on the released branch."""
    deploy, host = shell.environment.deploy, shell.host.name
    branch = f"{deploy.remote}/{deploy.branch}"
    command = commands.commit_of(deploy, revision)
    fetched = await shell.run(commands.fetch(deploy), limit=shell.environment.ssh.operation_seconds)
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


async def commits_between(shell: Shell, before: str, after: str, limit: int = 50) -> list[str]:
    """The commits that differ between two revisions, newest first: `>` is only in *after*, `<` only in *before*."""
    result = await shell.run(commands.log_between(shell.environment.deploy, before, after, limit))
    if not result.good:
        raise Refused(
            f"{shell.host.name} cannot list the commits from {short(before)} to {short(after)}: {result.summary}"
        )
    return result.stdout.splitlines()


def _fetch_error(shell: Shell, result: CommandResult) -> Refused | TryAgain:
    deploy = shell.environment.deploy
    sentence = f"{shell.host.name} cannot fetch {deploy.branch} from {deploy.remote}: {result.summary}"
    if any(word in result.stderr for word in _MISSING):
        return Refused(f"{sentence}; check deploy.directory, deploy.remote and deploy.branch")
    return TryAgain(sentence)


def _parts(text: str) -> dict[str, str]:
    parts = {}
    for part in text.split("\x01")[1:]:
        name, _, body = part.partition("\n")
        parts[name] = body.strip("\n")
    return parts


def _skew(clock: float, before: float, after: float) -> float:
    """The clock difference in seconds; 0 when the round trip and the one-second resolution explain it."""
    if before - 0.5 <= clock <= after + 0.5:
        return 0.0
    return clock - (before + after) / 2


def _unit(name: str, text: str) -> UnitFacts:
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    pid = values.get("MainPID", "0")
    return UnitFacts(
        name=name,
        loaded=values.get("LoadState") == "loaded",
        active_state=values.get("ActiveState", "unknown"),
        main_pid=int(pid) if pid.isdigit() and pid != "0" else None,
    )
