"""A plan examines whether a host could take a revision, and changes nothing that runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handlers.errors import TryAgain
from handlers.host.command import Command
from handlers.host.facts import Examination, examine, inspect, resolve
from handlers.host.operations import cancel, run_operation
from tests.integration.host.ssh_target import Target, open_host, serve
from tests.integration.host.trees import SERVICES, STRATEGIES, opened, running, tree_of


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    """One host without units."""
    async with serve(tmp_path, kind="asyncssh") as target:
        target.changed = {"services": SERVICES}
        yield target


@STRATEGIES
async def test_a_plan_examines_a_host_without_changing_it(target: Target, strategy: str) -> None:
    """The fetched commits are all that is new: no operation, no tree, no folder; what is served stays readable."""
    folder = await running(target, strategy)
    sha = target.commit("second", files={"new/b.txt": "b"})
    before, jobs = tree_of(target, folder), sorted(target.state().rglob("*"))
    async with opened(target) as shell:
        assert await examine(shell, sha, fetched=False) == Examination()
        facts = await inspect(shell, sha, tree="content")
    assert (facts.present, facts.clean, tree_of(target, folder)) == (True, True, before)
    assert sorted(target.state().rglob("*")) == jobs
    repository = target.tree() / ".git" if strategy == "checkout" else folder.parent / "repository"
    assert {path.stat().st_mode & 0o444 for path in (repository / "objects").rglob("*")} == {0o444}


async def test_a_plan_does_not_disturb_an_operation(target: Target) -> None:
    """While one runs on the host the tree is not examined, and the sentence names it."""
    sha = target.commit("second")
    async with opened(target) as shell:
        slow = asyncio.create_task(run_operation(shell, "r1-prepare-web-1-1", 1, Command("sleep", 30)))
        async with asyncio.timeout(20):
            while not (found := await examine(shell, sha, fetched=False)).skipped:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await cancel(shell, "r1-prepare-web-1-1")
        await slow
        assert not found.problem
        assert "the operation r1-prepare-web-1-1 runs on this host" in found.skipped
        assert await examine(shell, sha, fetched=False) == Examination()


async def test_a_git_server_that_does_not_answer_is_named(target: Target) -> None:
    """A plan ends after the time that an operation would have, on the first host and on the others."""
    target.git("remote", "set-url", "origin", "ext::sleep 60", at=target.tree())
    target.git("config", "protocol.ext.allow", "always", at=target.tree())
    environment = target.environment(ssh={"operation_seconds": 1})
    async with open_host(environment, environment.hosts[0]) as shell:
        found = await examine(shell, target.head(), fetched=False)
        with pytest.raises(
            TryAgain, match="cannot fetch main from origin: the git server did not answer within 1 s"
        ):
            await resolve(shell, "main")
    assert found.problem.endswith("the git server did not answer within 1 s")
