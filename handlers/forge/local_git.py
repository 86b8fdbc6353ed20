"""The local clone: the commit that is meant, and the push of it. Plain git, as the person who runs the command."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from handlers.environment.forge_settings import Forge
from handlers.errors import Refused, TryAgain

_WHOLE = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"(?!-)[A-Za-z0-9._/@{}~^-]{1,200}")


async def commit_in_clone(clone: Path, revision: str) -> str:
    """The whole commit id of *revision* in the clone; empty where there is no such clone or commit."""
    if not _REVISION.fullmatch(revision):
        return ""
    code, out, _ = await _git(clone, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", seconds=30)
    return out.strip() if code == 0 and _WHOLE.fullmatch(out.strip()) else ""


async def whole_commit(clone: Path, revision: str) -> str:
    """The whole commit id of *revision*; a whole one is itself, and no clone is asked. Raises Refused."""
    if _WHOLE.fullmatch(revision):
        return revision
    if commit := await commit_in_clone(clone, revision):
        return commit
    raise Refused(
        f"{_folder(clone)} is no clone that has {revision}: run the command in one, or name the whole commit id"
    )


async def push(clone: Path, settings: Forge, commit: str) -> None:
    """Push *commit* to the head branch, never by force. Raises Refused with the reason, and TryAgain."""
    branch = settings.head_branch
    by_hand = f"`git push {settings.remote} {commit[:7]}:{branch}`"
    if await commit_in_clone(clone, commit) != commit:
        raise Refused(
            f"{branch} of {settings.repository} is not at {commit[:7]}, and {_folder(clone)} is no clone that "
            f"has this commit: run the command in one, or push it with {by_hand}"
        )
    code, out, errors = await _git(
        clone, "push", "--porcelain", settings.remote, f"{commit}:refs/heads/{branch}",
        seconds=settings.push_seconds,
    )  # fmt: skip
    if code == 0:
        return
    rejected = next((line for line in out.splitlines() if line.startswith("!")), "")
    if "non-fast-forward" in rejected or "fetch first" in rejected or "stale info" in rejected:
        raise Refused(
            f"{branch} of {settings.repository} has commits that {commit[:7]} does not contain, and nothing is pushed "
            f"by force: merge {branch} first, and release the new commit"
        )
    if rejected:
        reason = rejected.rpartition("\t")[2] or rejected
        raise Refused(
            f"{settings.repository} rejects the push of {commit[:7]} to {branch}: {reason}. {_last(errors)}"
        )
    raise TryAgain(f"{commit[:7]} could not be pushed with {by_hand}: {_last(errors)}")


async def _git(clone: Path, *words: str, seconds: float) -> tuple[int, str, str]:
    """Run git in the clone, without questions. Raises Refused without git, TryAgain when it takes too long."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    try:
        process = await asyncio.create_subprocess_exec(
            "git", "-C", str(clone), *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment,
        )  # fmt: skip
    except OSError as error:
        raise Refused("git is not on the PATH of this machine: install it") from error
    try:
        async with asyncio.timeout(seconds):
            out, errors = await process.communicate()
    except TimeoutError as error:
        raise TryAgain(f"git {words[0]} took longer than {seconds:g} s (forge.push_seconds)") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace"), errors.decode(errors="replace")


def _last(errors: str) -> str:
    """What git said last, without a password in an address."""
    lines = [line.strip() for line in errors.splitlines() if line.strip() and not line.startswith("hint:")]
    return re.sub(r"//[^/@\s]+@", "//***@", "; ".join(lines[-2:]))[:300] or "git gave no reason"


def _folder(clone: Path) -> str:
    return "this folder" if clone == Path() else str(clone)
