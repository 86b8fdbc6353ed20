"""The sample ERP: nine revisions of a small application, in one git history that is the same everywhere.

Each revision is the folder `common` with the revision's own folder, if it has one, laid over it. Nothing in a
commit depends on the machine or the clock.
"""

from __future__ import annotations

import os
import subprocess
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

HISTORY: dict[str, str] = {
    "broken": "Write the queue's state through the new queue service",
    "sick": "Read tax rates at start-up",
    "slow": "Warm up exchange rates before taking work",
    "treacherous": "Raise reorder alerts from item webhooks",
    "stall": "Ask for the exchange rate before each batch",
    "one_type": "Note the bank fees of payments",
    "late": "Use the exchange rate of the period",
    "known": "Skip webhooks that change nothing",
    "fixed": "Leave the queue to the sync core",
}
"""The revisions in the order of main's history, each with its commit's subject."""

_IGNORED = "var/\n__pycache__/\n"
_FIRST_COMMIT_AT = 1_762_930_800


def write_origin(folder: Path) -> dict[str, str]:
    """Make a bare repository in *folder* whose main holds every revision; returns their commits by name."""
    _git("init", "--quiet", "--bare", "--initial-branch=main", str(folder))
    _git("-C", str(folder), "fast-import", "--quiet", feed=_stream())
    listed = _git("-C", str(folder), "rev-parse", *(f"refs/tags/{name}" for name in HISTORY))
    return dict(zip(HISTORY, listed.split(), strict=True))


def clone(origin: Path, to: Path, revision: str) -> None:
    """Clone the repository as a host would, and stand on *revision* as a deploy leaves it, on no branch."""
    _git("clone", "--quiet", "--no-checkout", f"file://{origin}", str(to))
    _git("-C", str(to), "checkout", "--quiet", "--detach", revision)


def export(origin: Path, to: Path, revision: str) -> None:
    """Lay the folder out as the strategy `releases` does, with *revision* as the current release."""
    release = to / "releases" / revision
    release.mkdir(parents=True)
    _git("clone", "--quiet", "--bare", f"file://{origin}", str(to / "repository"))
    files = ("--git-dir", str(to / "repository"), "--work-tree", str(release))
    _git(*files, "checkout", "--quiet", "--force", revision, "--", ".")
    (release / "REVISION").write_text(revision, encoding="utf-8")
    (to / "current").symlink_to(f"releases/{revision}")


def sources(name: str) -> dict[str, bytes]:
    """The files of a revision by their path in its repository."""
    found = {".gitignore": _IGNORED.encode()}
    for layer in ("common", name):
        folder = files(__package__).joinpath(layer)
        if folder.is_dir():
            found |= _read(folder)
    return found


def _read(folder: Traversable) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".py")}


def _stream() -> bytes:
    """The whole history in git's own import format."""
    parts: list[bytes] = []
    for number, (name, subject) in enumerate(HISTORY.items(), start=1):
        when = f"Sample Developer <developer@example.com> {_FIRST_COMMIT_AT + number * 7200} +0300"
        message = f"{subject}\n".encode()
        parts.append(f"commit refs/heads/main\nmark :{number}\n".encode())
        parts.append(f"author {when}\ncommitter {when}\ndata {len(message)}\n".encode() + message)
        if number > 1:
            parts.append(f"from :{number - 1}\n".encode())
        parts.append(b"deleteall\n")
        for path, content in sorted(sources(name).items()):
            parts.append(f"M 100644 inline {path}\ndata {len(content)}\n".encode() + content + b"\n")
        parts.append(f"reset refs/tags/{name}\nfrom :{number}\n\n".encode())
    return b"".join(parts)


def _git(*words: str, feed: bytes = b"") -> str:
    """Run git without the user's own settings: they would change commit ids, or ask questions."""
    environment = os.environ | {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_DEFAULT_HASH": "sha1",
    }
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environment.pop(name, None)
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *words],
        input=feed,
        capture_output=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        verb = next(word for word in words if not word.startswith(("-", "/")))
        raise RuntimeError(f"git {verb} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()
