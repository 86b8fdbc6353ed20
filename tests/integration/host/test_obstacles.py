"""What stands in the way of a switch is found before it, and never destroyed; the way back goes on all the same."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from handlers.host.facts import examine, inspect
from handlers.host.step import activate, prepare
from tests.integration.host.ssh_target import Target, git, serve
from tests.integration.host.trees import (
    SERVICES,
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


@pytest.mark.parametrize(
    ("standing", "committed"),
    [
        ("precious.log", {"precious.log": "theirs"}),
        ("media/precious.log", {"media": "theirs"}),
        ("media.log", {"media.log/new.txt": "theirs"}),
        ("media/precious.txt", {"media": "theirs"}),
        ("media.txt", {"media.txt/new.txt": "theirs"}),
        ("keep/precious.log", {"keep": "theirs"}),
        ("größe und preis.log", {"größe und preis.log": "theirs"}),
    ],
)
async def test_a_file_that_only_this_host_has_is_in_the_way(
    target: Target, standing: str, committed: dict[str, str]
) -> None:
    """Also where .gitignore names it: git would overwrite it, or remove it with its folder, without a word."""
    file = target.tree() / standing
    file.parent.mkdir(exist_ok=True)
    file.write_text("only here")
    if "keep" in committed:
        target.git("rm", "-q", "-r", "keep")
    for name in committed:
        (target.folder / "workshop" / name).parent.mkdir(exist_ok=True)
    target.git("config", "core.excludesFile", "/dev/null")
    sha = target.commit("theirs", files={".gitignore": "", **committed})
    output = await refused_before_the_switch(target, sha, "checkout")
    assert f"in the way of {sha} ({standing}): move them away" in output
    assert file.read_text() == "only here"


def sparse_by_folder(tree: Path) -> None:
    """Files of the root and of keep/ only."""
    git("sparse-checkout", "set", "keep", at=tree)


def staged(tree: Path) -> None:
    """A new file that is in the index only."""
    (tree / "mine.txt").write_text("mine")
    git("add", "mine.txt", at=tree)


def announced(tree: Path) -> None:
    """A new file that the index only names."""
    (tree / "mine.txt").write_text("mine")
    git("add", "--intent-to-add", "mine.txt", at=tree)


def staged_and_taken_back(tree: Path) -> None:
    """The file is as committed; the index is not."""
    content = (tree / "app.txt").read_text()
    (tree / "app.txt").write_text("mine")
    git("add", "app.txt", at=tree)
    (tree / "app.txt").write_text(content)


def without_an_index(tree: Path) -> None:
    """git takes all files for deleted."""
    (tree / ".git" / "index").unlink()


def damaged_index(tree: Path) -> None:
    """As after a power cut."""
    (tree / ".git" / "index").write_bytes(b"DIRC")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (sparse_by_folder, "run git sparse-checkout disable there"),
        (staged, "the index has changes that are not committed (mine.txt)"),
        (announced, "the index has changes that are not committed (mine.txt)"),
        (staged_and_taken_back, "the index has changes that are not committed (app.txt)"),
        (without_an_index, "run git reset there"),
        (damaged_index, "is damaged"),
    ],
)
async def test_a_checkout_that_the_switch_would_stumble_over_is_refused(
    target: Target, damage: Callable[[Path], None], words: str
) -> None:
    """Before the workers stop; and once it is mended as the sentence says, the release goes on."""
    damage(target.tree())
    sha = target.commit("second", files={"new/b.txt": "b"})
    assert words in await refused_before_the_switch(target, sha, "checkout")
    if "sparse" in words:
        git("sparse-checkout", "disable", at=target.tree())
    elif "damaged" in words:
        (target.tree() / ".git" / "index").unlink()
    git("reset", "-q", at=target.tree())
    async with opened(target) as shell:
        for verb in (prepare, activate):
            result = await verb(shell, change(sha, attempt=2))
            assert result.done, result.output
    assert tree_of(target)["new/b.txt"] == "b"


async def test_a_folder_that_cannot_be_written_is_refused(target: Target) -> None:
    """A file system that is read-only stands for a folder of another user: our SSH user here may write anywhere."""
    sha = target.commit("second", files={"keep/a.txt": "changed"})
    folder = target.tree() / "keep"
    if await mounting("mount", "--bind", "-o", "ro", str(folder), str(folder)):
        pytest.skip("this user may not mount")
    try:
        output = await refused_before_the_switch(target, sha, "checkout")
    finally:
        assert await mounting("umount", str(folder)) == 0
    assert "cannot write to folders" in output
    assert "(keep)" in output


async def mounting(*words: str) -> int:
    """The exit status of a command."""
    return await (await asyncio.create_subprocess_exec(*words, stderr=subprocess.DEVNULL)).wait()


@pytest.mark.parametrize("how", ["touched", "copied", "fileMode off"])
async def test_files_whose_times_changed_are_no_changes(target: Target, how: str) -> None:
    """A tree that was restored, copied or given to another user is as its commit."""
    tree = target.tree()
    match how:
        case "touched":
            (tree / "app.txt").touch()
        case "copied":
            shutil.copytree(tree, tree.with_name("copy"))
            shutil.rmtree(tree)
            tree.with_name("copy").rename(tree)
        case _:
            git("config", "core.fileMode", "false", at=tree)
            (tree / "app.txt").chmod(0o755)
    sha = target.commit("second", files={"app.txt": "second"})
    async with opened(target) as shell:
        assert (await examine(shell, sha, fetched=False)).problem == ""
        for verb in (prepare, activate):
            assert (await verb(shell, change(sha))).done


@pytest.mark.parametrize("damage", [sparse_by_folder, without_an_index, damaged_index, staged])
async def test_the_way_back_leaves_exactly_the_revision_whatever_the_index_says(
    target: Target, damage: Callable[[Path], None]
) -> None:
    """What happened to the index after the release does not keep a host on the bad revision."""
    old, before = target.head(), tree_of(target)
    sha = target.commit("second", files={"app.txt": "second", "new/b.txt": "b"})
    async with opened(target) as shell:
        for verb in (prepare, activate):
            assert (await verb(shell, change(sha))).done
        damage(target.tree())
        for verb in (prepare, activate):
            result = await verb(shell, change(old, back=True))
            assert result.done, result.output
        facts = await inspect(shell, old, tree="content")
    assert (facts.clean, facts.revision) == (True, old)
    assert tree_of(target).items() >= before.items()


@pytest.mark.parametrize("name", ["app.txt", "größe und preis.txt"])
async def test_the_way_back_moves_aside_what_only_this_host_has(target: Target, name: str) -> None:
    """A file that the release did not have any more was written again, ignored, by the service."""
    old = target.commit("before", files={name: "before"})
    async with opened(target) as shell:
        for verb in (prepare, activate):
            assert (await verb(shell, change(old, release="r0"))).done
    target.git("rm", "-q", name)
    sha = target.commit("without it", files={".gitignore": f"*.log\n{name}\n"})
    async with opened(target) as shell:
        for verb in (prepare, activate):
            assert (await verb(shell, change(sha))).done
        (target.tree() / name).write_text("only here")
        for verb in (prepare, activate):
            result = await verb(shell, change(old, back=True))
            assert result.done, result.output
    assert f"{name} was in the way of the rollback" in result.output
    assert tree_of(target)[name] == "before"
    [saved] = target.state().glob(f"lost/*/{name}")
    assert saved.read_text() == "only here"


async def test_what_runs_must_be_a_link_and_becomes_one_on_the_way_back(target: Target) -> None:
    """With the strategy `releases`: a folder cannot be replaced by a rename, and is moved aside by a rollback."""
    current = await running(target, "releases")
    old, sha = target.head(), target.commit("second", files={"app.txt": "second"})

    def make_folder() -> None:
        content = current.resolve()
        current.unlink()
        shutil.copytree(content, current)

    make_folder()
    assert "current is no link" in await refused_before_the_switch(target, sha, "releases")
    shutil.rmtree(current)
    current.symlink_to(f"releases/{old}")
    async with opened(target) as shell:
        for verb in (prepare, activate):
            assert (await verb(shell, change(sha, attempt=2))).done
        make_folder()
        for verb in (prepare, activate):
            result = await verb(shell, change(old, back=True, attempt=2))
            assert result.done, result.output
    assert (current / "app.txt").read_text() == "first"
    [lost] = current.parent.glob("current.*")
    assert (lost / "app.txt").read_text() == "second"
