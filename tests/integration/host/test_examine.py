"""A plan examines whether a host could take a revision, and changes nothing that runs."""

from __future__ import annotations

import asyncio
import os
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


async def test_a_lock_of_a_dead_git_does_not_stop_a_plan(target: Target) -> None:
    """The index's lock is left to the release. One that stops the fetch is removed once it is a minute old; before, the
    sentence names the file.
    """
    sha = target.commit("second")
    git_folder = target.tree() / ".git"
    # A fetch may leave a git behind that tidies up: it would be the living one of which the sentence speaks.
    with (git_folder / "config").open("a") as config:
        config.write("[maintenance]\n\tauto = false\n[gc]\n\tauto = 0\n")
    index, ref = git_folder / "index.lock", git_folder / "refs/remotes/origin/main.lock"
    index.touch()
    ref.touch()
    os.utime(index, (1, 1))
    async with opened(target) as shell:
        young = await examine(shell, sha, fetched=False)
        assert f"has left the lock {ref} less than a minute ago" in young.problem
        with pytest.raises(TryAgain, match=r"has left the lock .*/main\.lock less than a minute ago"):
            await resolve(shell, "main")
        assert ref.exists()
        os.utime(ref, (1, 1))
        index.unlink()
        assert await resolve(shell, "main") == sha
        index.touch()
        assert await examine(shell, sha, fetched=True) == Examination()
    assert (index.exists(), ref.exists()) == (True, False)


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
