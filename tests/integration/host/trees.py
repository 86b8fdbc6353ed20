"""Changes of a host's tree without units, by either strategy, and the files that are there then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from handlers.host.facts import examine
from handlers.host.operations import OperationOutcome
from handlers.host.ssh import Shell
from handlers.host.step import HostChange, activate, prepare
from tests.integration.host.ssh_target import Target, git, open_host

SERVICES: dict[str, Any] = {"command": ["true"], "web": [], "workers": []}
STRATEGIES = pytest.mark.parametrize("strategy", ["checkout", "releases"])


class NoRecorder:
    """Records nothing: these tests are about the tree."""

    async def intend(self, operation_id: str, host: str, kind: str, command: str) -> None:
        """Ignored."""

    async def confirm(self, operation_id: str, outcome: str, exit_status: int | None, output: str) -> None:
        """Ignored."""


def change(revision: str, **values: Any) -> HostChange:
    """A change of release r1."""
    return HostChange(
        **{"release": "r1", "token": 1, "revision": revision, "recorder": NoRecorder()} | values
    )


def as_releases(target: Target) -> Path:
    """Let the host use the strategy `releases`; its folder."""
    base = target.hosts["web-1"] / "rel"
    base.mkdir()
    git("clone", "-q", "--bare", str(target.origin), "repository", at=base)
    target.changed = {
        "services": SERVICES,
        "deploy": {"strategy": "releases", "directory": "~/rel", "state_directory": "~/state dir"},
    }
    return base


async def running(target: Target, strategy: str) -> Path:
    """The folder that the units would run from, on the first commit, by either strategy."""
    if strategy == "checkout":
        return target.tree()
    base, first = as_releases(target), target.head()
    async with opened(target) as shell:
        for verb in (prepare, activate):
            assert (await verb(shell, change(first, release="r0"))).done
    return base / "current"


@asynccontextmanager
async def opened(target: Target) -> AsyncIterator[Shell]:
    """A connection to the host, with the environment as it is now."""
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        yield shell


def tree_of(target: Target, folder: Path | None = None) -> dict[str, str]:
    """Every file of the checkout, or of another folder, with its content; not our own file REVISION."""
    root = (folder or target.tree()).resolve()
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(root).parts and path != root / "REVISION"
    }


async def refused_before_the_switch(target: Target, sha: str, strategy: str) -> str:
    """The output of a preparation that is refused; what runs is as before, and nothing is left behind.

    A plan finds the same before, without an operation, and says it in one sentence.
    """
    if strategy == "releases" and "deploy" not in target.changed:
        as_releases(target)
    before, state = tree_of(target), target.state()
    kept = set(state.iterdir()) if state.exists() else set()
    async with opened(target) as shell:
        foreseen = await examine(shell, sha, fetched=False)
        assert set(state.iterdir()) == kept
        result = await prepare(shell, change(sha))
    assert (result.outcome, result.exit_status) == (OperationOutcome.FAILED, 65), result.output
    assert "\n" not in foreseen.problem
    # The same sentence; where it points to lines above, a plan has them in brackets.
    assert foreseen.problem.partition(" (")[0] == result.sentence.partition(": ")[2].partition(" (")[0]
    assert tree_of(target) == before
    assert not list(target.state().rglob("trees/*/*"))
    return result.output
