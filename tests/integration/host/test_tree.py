"""Switching the tree: refused with a reason, verified by content, repaired after an interruption."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handlers.host.facts import inspect, resolve
from handlers.host.operations import OperationOutcome
from handlers.host.ssh import Shell
from handlers.host.state import read_state
from handlers.host.step import activate, prepare
from tests.integration.host.ssh_target import Target, git, open_host, serve
from tests.integration.host.trees import (
    SERVICES,
    STRATEGIES,
    as_releases,
    change,
    opened,
    refused_before_the_switch,
    running,
    tree_of,
)


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    """One host without units: these tests are about the tree."""
    async with serve(tmp_path, kind="asyncssh") as target:
        target.changed = {"services": SERVICES}
        yield target


@pytest.fixture
async def shell(target: Target) -> AsyncIterator[Shell]:
    """A connection to it."""
    async with opened(target) as shell:
        yield shell


@STRATEGIES
async def test_preparing_does_not_touch_what_runs(target: Target, strategy: str) -> None:
    """After the preparation the host has the revision; the running tree is unchanged."""
    folder = await running(target, strategy)
    before, sha = tree_of(target, folder), target.commit("second")
    async with opened(target) as shell:
        assert (await prepare(shell, change(sha))).done
        facts = await inspect(shell, sha, tree="content")
    assert tree_of(target, folder) == before
    assert (facts.present, facts.clean, facts.revision != sha) == (True, True, True)


@STRATEGIES
async def test_a_switch_there_and_back_leaves_exactly_the_revision(target: Target, strategy: str) -> None:
    """Forward and back, also while the origin is away; added and deleted files are right."""
    folder, first = await running(target, strategy), target.head()
    before = tree_of(target, folder)
    target.git("rm", "-q", "keep/a.txt")
    sha = target.commit("second", files={"app.txt": "second", "new/b.txt": "b", "REVISION.md": "r"})
    async with opened(target) as shell:
        for verb in (prepare, activate):
            result = await verb(shell, change(sha))
            assert result.done, result.output
        assert tree_of(target, folder) == {
            ".gitignore": "*.log\n",
            "REVISION.md": "r",
            "app.txt": "second",
            "new/b.txt": "b",
        }
        assert (await inspect(shell, tree="content")).clean
        target.origin.rename(target.folder / "gone.git")
        for verb in (prepare, activate):
            assert (await verb(shell, change(first, back=True))).done
        assert (await inspect(shell)).revision == first
    assert tree_of(target, folder) == before


@STRATEGIES
@pytest.mark.parametrize("edit", ["changed", "deleted", "executable"])
async def test_an_edit_of_what_runs_is_found_and_refused(target: Target, strategy: str, edit: str) -> None:
    """By a plan and by the preparation, whatever git's index says; the edit is kept."""
    folder, sha = await running(target, strategy), target.commit("second", files={"other.txt": "o"})
    file = folder / "app.txt"
    match edit:
        case "changed":
            file.write_text("hand-made")
        case "deleted":
            file.unlink()
        case _:
            file.chmod(0o755)
    if strategy == "checkout":
        git("update-index", "--skip-worktree", "app.txt", at=target.tree())
    async with opened(target) as shell:
        facts = await inspect(shell, tree="content")
        assert not facts.clean
        assert "app.txt" in facts.dirt
        result = await prepare(shell, change(sha))
    assert (result.outcome, result.exit_status) == (OperationOutcome.FAILED, 65)
    assert "local changes" in result.sentence
    assert "app.txt" in result.output
    assert file.exists() is (edit != "deleted")
    assert edit != "changed" or file.read_text() == "hand-made"


async def test_a_switch_leaves_exactly_the_revision(target: Target, shell: Shell) -> None:
    """The switch removes deleted files, adds new ones, and keeps ignored and untracked ones."""
    target.git("rm", "-q", "keep/a.txt")
    sha = target.commit("second", files={"app.txt": "second", "new/b.txt": "b"})
    (target.tree() / "server.log").write_text("log")
    (target.tree() / ".env").write_text("SECRET=1")
    await prepare(shell, change(sha))
    result = await activate(shell, change(sha))
    assert result.done, result.sentence
    assert tree_of(target) == {
        ".env": "SECRET=1",
        ".gitignore": "*.log\n",
        "app.txt": "second",
        "new/b.txt": "b",
        "server.log": "log",
    }


async def test_a_dirty_tree_is_refused_with_its_diff(target: Target, shell: Shell) -> None:
    """Local changes are shown and not overwritten."""
    sha = target.commit("second")
    (target.tree() / "app.txt").write_text("hand-made")
    for verb in (prepare, activate):
        result = await verb(shell, change(sha))
        assert (result.outcome, result.exit_status) == (OperationOutcome.FAILED, 65)
        assert "local changes" in result.sentence
    assert "+hand-made" in result.output
    assert (target.tree() / "app.txt").read_text() == "hand-made"


async def test_an_untracked_file_in_the_way_is_refused(target: Target) -> None:
    """An untracked file is not overwritten by a committed one."""
    sha = target.commit("second", files={"settings.py": "theirs"})
    (target.tree() / "settings.py").write_text("mine")
    assert "settings.py" in await refused_before_the_switch(target, sha, "checkout")
    assert (target.tree() / "settings.py").read_text() == "mine"


@pytest.mark.parametrize("where", ["index.lock", "HEAD.lock", "refs/remotes/origin/main.lock"])
async def test_a_lock_of_a_dead_git_is_taken_away(target: Target, shell: Shell, where: str) -> None:
    """The lock files of a killed git do not stop a release."""
    sha = target.commit("second")
    (target.tree() / ".git" / where).write_text("")
    assert (await prepare(shell, change(sha))).done
    (target.tree() / ".git" / "index.lock").write_text("")
    result = await activate(shell, change(sha))
    assert result.done, result.sentence
    assert "removing " in result.output


async def test_a_lock_of_a_living_git_is_left_alone(target: Target, shell: Shell) -> None:
    """While a git process runs in the tree, its lock file is kept."""
    sha = target.commit("second")
    (target.tree() / ".git" / "index.lock").write_text("")
    living = await asyncio.create_subprocess_exec(
        *("git", "cat-file", "--batch"), cwd=target.tree(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        result = await prepare(shell, change(sha))
    finally:
        living.terminate()
        await living.wait()
    assert result.exit_status == 69
    assert "another git process" in result.sentence
    assert (target.tree() / ".git" / "index.lock").exists()


@STRATEGIES
async def test_an_unknown_and_an_unmerged_revision_are_refused(target: Target, strategy: str) -> None:
    """The host itself checks that the revision is on the released branch."""
    base = target.tree() if strategy == "checkout" else as_releases(target) / "repository"
    side = target.commit("side", branch="side")
    target.git("fetch", "-q", "origin", "side", at=base)
    async with opened(target) as shell:
        assert "is not on origin/main" in (await prepare(shell, change("f" * 40))).sentence
        result = await prepare(shell, change(side, attempt=2))
    assert result.exit_status == 65
    assert "is not on origin/main" in result.sentence


@STRATEGIES
async def test_an_origin_that_is_gone_changes_nothing(target: Target, strategy: str) -> None:
    """A fetch that fails can be retried, and its message names the branch and the remote."""
    if strategy == "releases":
        as_releases(target)
    target.origin.rename(target.folder / "gone.git")
    async with opened(target) as shell:
        result = await prepare(shell, change(target.head()))
    assert result.exit_status == 69
    assert "cannot fetch main from origin" in result.sentence


def half_switched(target: Target, sha: str) -> None:
    """The state after a kill during a checkout: new files, the old HEAD, a git lock, and our file `switching`."""
    git("--work-tree=.", "checkout", sha, "--", ".", at=target.tree())
    git("reset", "-q", at=target.tree())
    (target.tree() / ".git" / "index.lock").write_text("")
    target.state().mkdir(exist_ok=True)
    (target.state() / "switching").write_text(f"{sha}\n")


@pytest.mark.parametrize("back", [False, True])
async def test_a_switch_that_was_killed_half_way_is_fixed(target: Target, shell: Shell, back: bool) -> None:
    """Forward or back, the tree is then exactly one revision, without files of the other."""
    old, before = target.head(), tree_of(target)
    sha = target.commit("second", files={"app.txt": "second", "new/b.txt": "b"})
    await prepare(shell, change(sha))
    half_switched(target, sha)
    facts = await inspect(shell)
    assert not facts.clean
    assert facts.switching_to == sha
    goal = old if back else sha
    assert (await prepare(shell, change(goal, back=back, attempt=2))).done
    result = await activate(shell, change(goal, back=back))
    assert result.done, result.sentence
    assert (await inspect(shell)).clean
    assert target.head() == goal
    if back:
        assert tree_of(target) == before
    else:
        assert tree_of(target)["new/b.txt"] == "b"


async def test_a_lying_index_does_not_prove_a_tree(target: Target, shell: Shell) -> None:
    """A wrong file that `git status` does not show is found before and after the switch; the way back rewrites it."""
    sha = target.commit("second", files={"other.txt": "the switch has no reason to touch app.txt"})
    git("update-index", "--skip-worktree", "app.txt", at=target.tree())
    (target.tree() / "app.txt").write_text("hidden")
    assert git("status", "--porcelain", at=target.tree()) == ""
    refused = await prepare(shell, change(sha))
    assert refused.exit_status == 65
    assert "app.txt: needs update" in refused.output
    result = await activate(shell, change(sha))
    assert (result.done, result.exit_status) == (False, 81)
    assert "app.txt: needs update" in result.output
    result = await activate(shell, change(sha, back=True, attempt=2))
    assert result.done, result.output
    assert tree_of(target)["app.txt"] == "first"
    [saved] = target.state().glob("lost/*/changes.diff")
    assert "hidden" in saved.read_text()


async def test_hooks_run_in_the_new_tree_with_the_revision(target: Target) -> None:
    """Hooks run in a copy of the new tree before the switch, and in the tree itself after it; quotes are kept."""
    sha = target.commit("second")
    target.changed["deploy"] = {
        "directory": "~/erp it's",
        "state_directory": "~/state dir",
        "before_activate": [
            """echo "before '$REVISION' $(cat app.txt) $RUNBOOK_DIRECTION" >>"$HOME/hooks" """
        ],
        "after_activate": ["""echo "after '$REVISION' $(cat app.txt) $(pwd)" >>"$HOME/hooks" """],
    }
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        assert (await prepare(shell, change(sha))).done
        assert (await activate(shell, change(sha))).done
    assert (target.hosts["web-1"] / "hooks").read_text().splitlines() == [
        f"before '{sha}' second forward",
        f"after '{sha}' second {target.tree()}",
    ]
    assert not (target.state() / "trees").exists()


async def test_a_failing_hook_before_the_switch_keeps_the_tree(target: Target) -> None:
    """The message has the hook and its exit status, and nothing was switched."""
    sha, old = target.commit("second"), target.head()
    target.changed["deploy"] = {
        "directory": "~/erp it's",
        "state_directory": "~/state dir",
        "before_activate": ["echo fine", "echo no wheel; exit 9"],
    }
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        result = await prepare(shell, change(sha))
    assert result.exit_status == 80
    assert "status 9" in result.sentence
    assert "no wheel" in result.output
    assert target.head() == old


async def test_a_hook_of_the_repository_does_not_run(target: Target, shell: Shell) -> None:
    """Git hooks on the host do not run in a release."""
    hook = target.tree() / ".git/hooks/post-checkout"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    sha = target.commit("second")
    await prepare(shell, change(sha))
    assert (await activate(shell, change(sha))).done


async def test_the_releases_strategy_switches_one_link(target: Target) -> None:
    """Each revision has its own folder; one rename switches the link, forward and back."""
    base = target.hosts["web-1"] / "app"
    base.mkdir()
    git("clone", "-q", "--bare", str(target.origin), "repository", at=base)
    old, sha = target.head(), target.commit("second")
    keys = {"strategy": "releases", "directory": "~/app", "state_directory": "~/state dir"}
    target.changed["deploy"] = keys
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        assert "prepare it first" in (await activate(shell, change(old))).sentence
        for number, revision in enumerate((old, sha)):
            attempt = number + 2
            assert (await prepare(shell, change(revision, attempt=attempt))).done
            result = await activate(shell, change(revision, attempt=attempt))
            assert result.done, result.sentence
            assert (base / "current" / "REVISION").read_text() == f"{revision}\n"
            assert (await inspect(shell)).revision == revision
        assert (base / "current" / "app.txt").read_text() == "second"
        target.origin.rename(target.folder / "gone.git")
        assert (await prepare(shell, change(old, back=True))).done
        assert (await activate(shell, change(old, back=True))).done
        state = await read_state(shell)
    assert os.readlink(base / "current") == f"releases/{old}"
    assert state is not None
    assert (state.current, state.previous) == (old, old)


async def test_a_release_folder_that_is_incomplete_is_exported_again(target: Target) -> None:
    """An export that was killed has no REVISION and is never activated."""
    base = target.hosts["web-1"] / "app"
    base.mkdir()
    git("clone", "-q", "--bare", str(target.origin), "repository", at=base)
    sha = target.head()
    (base / "releases" / sha).mkdir(parents=True)
    (base / "releases" / sha / "rubbish").write_text("half")
    target.changed["deploy"] = {
        "strategy": "releases",
        "directory": "~/app",
        "state_directory": "~/state dir",
    }
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        assert "missing or incomplete" in (await activate(shell, change(sha))).sentence
        assert (await prepare(shell, change(sha))).done
        assert (await activate(shell, change(sha, attempt=2))).done
    assert not (base / "current" / "rubbish").exists()


@STRATEGIES
async def test_a_revision_with_a_submodule_is_refused_before_the_switch(
    target: Target, strategy: str
) -> None:
    """Its folder would keep the old content in one strategy, and be empty in the other."""
    library = target.folder / "library.git"
    git("clone", "-q", "--bare", str(target.origin), str(library), at=target.folder)
    target.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library), "vendor/lib")
    output = await refused_before_the_switch(target, target.commit("with a submodule"), strategy)
    assert "has submodules, which are not deployed (vendor/lib)" in output


@STRATEGIES
async def test_a_file_that_git_writes_otherwise_than_committed_is_refused_before_the_switch(
    target: Target, strategy: str
) -> None:
    """CRLF in the commit, and `eol=crlf` for it: what is written never equals the commit."""
    target.commit("attributes", files={".gitattributes": "*.win text eol=crlf\n"})
    (target.folder / "workshop" / "win.win").write_bytes(b"one\r\ntwo\r\n")
    # As an older git or another tool commits it: unfiltered.
    blob = target.git("hash-object", "-w", "--no-filters", "win.win")
    target.git("update-index", "--add", "--cacheinfo", f"100644,{blob},win.win")
    target.git("commit", "-q", "-m", "crlf")
    target.git("push", "-q", "origin", "HEAD:main")
    sha = target.git("rev-parse", "HEAD")
    output = await refused_before_the_switch(target, sha, strategy)
    assert "win.win" in output
    assert "git add --renormalize" in output


@STRATEGIES
async def test_a_pointer_of_git_lfs_is_refused_before_the_switch(target: Target, strategy: str) -> None:
    """Without git-lfs on the host, the pointer would be deployed instead of the file."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n"
    attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
    sha = target.commit("lfs", files={".gitattributes": attributes, "model.bin": pointer})
    output = await refused_before_the_switch(target, sha, strategy)
    assert "pointers instead of files (model.bin)" in output


async def test_a_release_folder_has_what_an_archive_would_leave_out(target: Target) -> None:
    """export-ignore and export-subst are for archives: a release is exactly its commit."""
    base = as_releases(target)
    files = {
        ".gitattributes": "migrations/ export-ignore\nversion.txt export-subst\n",
        "migrations/001.sql": "create table x();",
        "version.txt": "$Format:%H$",
    }
    sha = target.commit("for archives", files=files)
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        assert (await prepare(shell, change(sha))).done
        assert (await activate(shell, change(sha))).done
    current = (base / "current").resolve()
    assert {name: (current / name).read_text() for name in files} == files


async def test_the_hooks_of_a_checkout_see_the_whole_revision(target: Target) -> None:
    """A migration that is left out of archives is in the tree in which the hook runs."""
    hook = "ls migrations/001.sql"
    target.changed = {"services": SERVICES, "deploy": {"before_activate": [hook]}}
    files = {".gitattributes": "migrations/ export-ignore\n", "migrations/001.sql": "create table x();"}
    sha = target.commit("with a migration", files=files)
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        result = await prepare(shell, change(sha))
    assert result.done, result.output
    assert "migrations/001.sql" in result.output


async def test_a_shallow_clone_is_completed(target: Target) -> None:
    """An older revision of the branch is found, and can be deployed."""
    older = target.commit("older")
    target.commit("newer")
    shutil.rmtree(target.tree())
    git("clone", "-q", "--depth", "1", f"file://{target.origin}", "erp it's", at=target.hosts["web-1"])
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        assert await resolve(shell, older) == older
        assert (await prepare(shell, change(older))).done
    assert target.git("rev-parse", "--is-shallow-repository", at=target.tree()) == "false"


async def test_a_prepared_release_folder_that_was_edited_is_not_released(target: Target) -> None:
    """Edited before the release it is exported again; edited after the preparation the switch is refused."""
    folder = await running(target, "releases")
    sha = target.commit("second")
    copy = folder.parent / "releases" / sha
    async with opened(target) as shell:
        assert (await prepare(shell, change(sha))).done
        (copy / "app.txt").write_text("hand-made")
        again = await prepare(shell, change(sha, attempt=2))
        assert "it is exported again" in again.output
        assert (copy / "app.txt").read_text() == "second"
        (copy / "app.txt").write_text("hand-made")
        result = await activate(shell, change(sha))
        assert result.exit_status == 65
        assert "nothing was switched" in result.sentence
    assert tree_of(target, folder)["app.txt"] == "first"


async def test_a_hook_that_writes_tracked_files_is_refused_before_the_switch(target: Target) -> None:
    """With the strategy `releases` hooks run in the folder that is released: it would not be the commit."""
    base = as_releases(target)
    target.changed["deploy"]["before_activate"] = ["echo built >app.txt"]
    async with opened(target) as shell:
        result = await prepare(shell, change(target.commit("second")))
    assert result.exit_status == 65
    assert "a hook changed files of the revision" in result.sentence
    assert not (base / "current").exists()


@STRATEGIES
async def test_a_file_system_without_inodes_is_refused_before_the_switch(
    target: Target, strategy: str
) -> None:
    """Bytes are free, but no more files can be made: the switch would end half-way."""
    shim = target.hosts["web-1"] / "bin" / "df"
    lines = "printf 'Filesystem Inodes IUsed IFree IUse%% Mounted\\ntmpfs 130 118 12 91%% /\\n'"
    shim.write_text(
        f'#!/bin/sh\ncase $1 in -Pi) {lines} ;; *) exec /usr/bin/env -u PATH /bin/df "$@" ;; esac\n'
    )
    shim.chmod(0o755)
    output = await refused_before_the_switch(target, target.commit("more files"), strategy)
    assert "only 12 inodes are free" in output


async def test_a_rollback_is_not_refused_for_what_a_release_is(target: Target) -> None:
    """With a hook, the previous revision is exported as well; a pointer in it must not keep a host on the bad one."""
    target.changed = {"services": SERVICES, "deploy": {"before_activate": ["true"]}}
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n"
    sha = target.commit("lfs", files={"model.bin": pointer})
    git("fetch", "-q", at=target.tree())
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        result = await prepare(shell, change(sha, back=True))
    assert result.done, result.output
