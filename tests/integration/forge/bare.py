"""A bare repository behind the stand-in: what is pushed, merged and released are real commits."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "Ada L", "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada L", "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip


def git(folder: Path, *words: str, check: bool = True) -> str:
    """The output of a git command in a folder."""
    done = subprocess.run(
        ["git", "-C", str(folder), *words],
        env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip() if done.returncode == 0 else ""


@dataclass(frozen=True)
class Bare:
    """The repository on the forge."""

    folder: Path

    def tip(self, branch: str) -> str:
        """The commit of a branch; empty where there is none."""
        return git(self.folder, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", check=False)

    def has(self, commit: str) -> bool:
        """Whether it has this commit."""
        return bool(git(self.folder, "cat-file", "-t", commit, check=False) == "commit")

    def tree(self, commit: str) -> str:
        """The tree of a commit."""
        return git(self.folder, "rev-parse", f"{commit}^{{tree}}")

    def trial(self, base: str, head: str) -> str:
        """A merge commit of both; empty where they conflict."""
        tree = git(self.folder, "merge-tree", "--write-tree", base, head, check=False)
        return git(self.folder, "commit-tree", tree, "-p", base, "-p", head, "-m", "trial") if tree else ""

    def squash(self, branch: str, head: str, message: str) -> str:
        """One commit on *branch* with what *head* has more; the branch is moved to it."""
        base = self.tip(branch)
        tree = git(self.folder, "merge-tree", "--write-tree", base, head)
        made = git(self.folder, "commit-tree", tree, "-p", base, "-m", message)
        git(self.folder, "update-ref", f"refs/heads/{branch}", made, base)
        return made

    def log(self, base: str, head: str) -> list[tuple[str, str, str]]:
        """Id, author and message of the commits that only *head* has, oldest first."""
        out = git(self.folder, "log", "--reverse", "--format=%H%x1f%an%x1f%B%x1e", f"{base}..{head}")
        parts = [each.strip("\n").split("\x1f") for each in out.split("\x1e") if each.strip()]
        return [(sha, author, message.strip()) for sha, author, message in parts]

    def count(self, base: str, head: str) -> int:
        """How many commits only *head* has."""
        return int(git(self.folder, "rev-list", "--count", f"{base}..{head}"))

    def files(self, base: str, head: str) -> list[tuple[str, str, str]]:
        """Name, change and patch of the files that *head* changes since both parted."""
        start = git(self.folder, "merge-base", base, head)
        words = {"A": "added", "M": "modified", "D": "removed"}
        found = []
        for line in git(self.folder, "diff", "--no-renames", "--name-status", start, head).splitlines():
            change, _, name = line.partition("\t")
            patch = git(self.folder, "diff", "--no-renames", start, head, "--", name)
            hunks = patch.find("\n@@")
            found.append((name, words[change], patch[hunks + 1 :] if hunks >= 0 else ""))
        return found


@dataclass(frozen=True)
class Clone:
    """The clone of a person."""

    folder: Path

    def commit(self, message: str, files: dict[str, str]) -> str:
        """A new commit with these files."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "-m", message)
        return git(self.folder, "rev-parse", "HEAD")

    def push(self, commit: str, branch: str, *, force: bool = False) -> None:
        """Push it by hand."""
        git(
            self.folder,
            "push",
            "--quiet",
            *(["--force"] if force else []),
            "origin",
            f"{commit}:refs/heads/{branch}",
        )


def make(folder: Path) -> tuple[Bare, Clone, str]:
    """A forge's repository with a first commit on main and develop, a clone of it, and that commit."""
    bare, clone = folder / "erp.git", folder / "clone"
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(bare)], check=True)
    subprocess.run(["git", "init", "--quiet", "-b", "work", str(clone)], check=True)
    git(clone, "remote", "add", "origin", str(bare))
    mine = Clone(clone)
    first = mine.commit("Begin", {"app.py": "VERSION = 1\n"})
    mine.push(first, "main")
    mine.push(first, "develop")
    return Bare(bare), mine, first
