"""Every command that is sent to a host, as a value. `ssh` runs it; `operations` runs it detached and exactly once.

Pure: standard library only. The settings are imported only for the type checker.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from handlers.errors import Refused
from handlers.host.command import Command, Word, quote, quoted
from handlers.host.sh import script

if TYPE_CHECKING:
    from handlers.environment.model import Deploy, Services

_HASH = re.compile(r"^[0-9a-f]{7,40}$")
_SHA = re.compile(r"^[0-9a-f]{40}$")
_REF = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/+\-]{0,199}$")
_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,127}$")

_GIT = (
    "env", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C", "git",
    "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false",
    # Without an identity git looks up the host name at each ref change, which takes ten seconds without DNS.
    "-c", "user.name=tds-runbook", "-c", "user.email=tds-runbook@localhost", "-c", "gc.auto=0",
    "-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=20",
)  # fmt: skip


def checked_sha(revision: str) -> str:
    """*revision* if it is a full commit id, as every change of a host needs it. Raises Refused otherwise."""
    if not _SHA.fullmatch(revision):
        raise Refused(f"{revision!r} is not a full commit id (40 hexadecimal digits): resolve it first")
    return revision


def checked_revision(revision: str) -> str:
    """*revision* if it can be a commit id or the name of a branch or tag. Raises Refused otherwise."""
    invalid = (
        not _REF.fullmatch(revision)
        or ".." in revision
        or "//" in revision
        or revision.endswith((".", "/", ".lock"))
    )
    if invalid:
        raise Refused(
            f"{revision!r} is no revision: use a commit id (7 to 40 hexadecimal digits), a branch or a tag"
        )
    return revision


def checked_id(operation_id: str) -> str:
    """*operation_id* if it is valid as the name of a folder on a host. Raises Refused otherwise."""
    if not _ID.fullmatch(operation_id):
        raise Refused(f"{operation_id!r} is no valid operation id: use only letters, digits, . _ -")
    return operation_id


def state_directory(deploy: Deploy) -> PurePosixPath:
    """The folder of the host's state file, lock and operations."""
    return PurePosixPath(deploy.state_directory)


def repository(deploy: Deploy) -> PurePosixPath:
    """The git repository on the host: the checkout itself, or `repository` next to `releases`."""
    return deploy.directory if deploy.strategy == "checkout" else deploy.directory / "repository"


def git(deploy: Deploy, *words: Word, changes: bool = False) -> Command:
    """One git command in the host's repository."""
    return Command(*_GIT, "-C", repository(deploy), *words, changes=changes)


def fetch(deploy: Deploy, seconds: int) -> Command:
    """Fetch the released branch, within a timeout on the host.

    It does not ask for a commit id, because git servers refuse that.
    """
    tracking = f"refs/remotes/{deploy.remote}/{deploy.branch}"
    refspec = f"+refs/heads/{deploy.branch}:{tracking}"
    body = _git_functions(repository(deploy)) + script("tree", "fetch")
    return Command.procedure(body, seconds, deploy.remote, refspec, title="fetch")


def commit_of(deploy: Deploy, revision: str) -> Command:
    """Prints the full commit id of *revision*: a branch of the remote or a tag, never a stale local branch."""
    checked_revision(revision)
    names = [f"refs/remotes/{deploy.remote}/{revision}", f"refs/tags/{revision}"]
    if _HASH.fullmatch(revision):
        names.insert(0, revision)
    body = 'for name; do git_here rev-parse -q --verify "$name^{commit}" 2>/dev/null && exit 0; done; exit 1'
    return Command.procedure(_git_functions(repository(deploy)) + body, *names, title="commit-of")


def is_on_branch(deploy: Deploy, sha: str) -> Command:
    """Succeeds when the released branch of the remote contains the commit."""
    return git(
        deploy,
        "merge-base",
        "--is-ancestor",
        checked_sha(sha),
        f"refs/remotes/{deploy.remote}/{deploy.branch}",
    )


def log_between(deploy: Deploy, before: str, after: str, limit: int = 50) -> Command:
    """Prints one line for each commit that only one of them contains: `>` only *after*, `<` only *before*.

    Behind the mark are its short id, its author and its subject, separated by US (0x1F).
    """
    commits = f"{checked_sha(before)}...{checked_sha(after)}"
    pretty = "--format=%m%h%x1f%aN%x1f%s"
    return git(
        deploy, "log", "--left-right", "--no-decorate", "--abbrev=7", f"--max-count={limit}", pretty, commits
    )


def changed_names(deploy: Deploy, before: str, after: str, patterns: Sequence[str]) -> Command:
    """Prints a line for each file of these patterns that differs between two commits: how, a tab, and its path."""
    globs = (f":(glob){pattern}" for pattern in patterns)
    names = (
        "diff",
        "--no-renames",
        "--no-ext-diff",
        "--name-status",
        checked_sha(before),
        checked_sha(after),
    )
    return git(deploy, *names, "--", *globs)


def file_at(deploy: Deploy, sha: str, path: str) -> Command:
    """Prints a file as it is in a commit."""
    return git(deploy, "cat-file", "blob", f"{checked_sha(sha)}:{path}")


def prepare(deploy: Deploy, sha: str, *, back: bool = False) -> Command:
    """Fetch and verify a revision, and check that the switch can work; the running tree is not changed."""
    body = _git_functions() + script("content", "tree", "obstacles", f"prepare_{deploy.strategy}")
    direction = "back" if back else "forward"
    values: tuple[Word, ...] = (deploy.directory, checked_sha(sha), deploy.remote, deploy.branch, direction)
    return Command.procedure(body, *values, *deploy.before_activate, title="prepare", changes=True)


def activate(deploy: Deploy, sha: str, *, back: bool = False) -> Command:
    """Switch to a prepared revision, verify the tree, and run the hooks. `units` restarts the units."""
    body = _git_functions() + script("content", "tree", "obstacles", f"activate_{deploy.strategy}")
    values = (deploy.directory, checked_sha(sha), "back" if back else "forward", *deploy.after_activate)
    return Command.procedure(body, *values, title="activate", changes=True)


def examine(deploy: Deploy, sha: str, *, fetch_seconds: int | None) -> Command:
    """Check whether `prepare` would refuse a revision; changes nothing that runs. Its last line is a sentence.

    Without *fetch_seconds*, the timeout of the fetch, the branch has just been fetched.
    """
    body = _git_functions() + script("process", "content", "tree", "obstacles", "examine")
    values: tuple[Word, ...] = (
        deploy.strategy,
        deploy.directory,
        checked_sha(sha),
        deploy.remote,
        deploy.branch,
    )
    return Command.procedure(body, *values, state_directory(deploy), fetch_seconds or "", title="examine")


def units(services: Services, verb: str, names: tuple[str, ...], *, patience: float | None = None) -> Command:
    """Stop or restart units and check each afterwards. A restart first resets the units' failure counters.

    With *patience* (seconds) a unit that hangs does not hold up the caller: a stop goes on by itself, and a restart
    kills what does not stop.
    """
    if verb not in ("stop", "restart"):
        raise ValueError(f"units can be stopped and restarted, not {verb!r}")
    body = _service_functions(services) + script("units")
    waits = "" if patience is None else str(max(1, round(patience)))
    return Command.procedure(body, verb, waits, *names, title="units", changes=True)


def denied(services: Services) -> Command | None:
    """Prints the verb and unit of each call that sudo would refuse, without running it; None without sudo."""
    words = services.command
    if PurePosixPath(words[0]).name != "sudo":
        return None
    check = quoted((words[0], "-l", *words[1:]))
    body = f"""while [ $# -gt 1 ]; do
    {check} "$1" "$2" >/dev/null 2>&1 </dev/null || printf '%s %s\\n' "$1" "$2"
    shift 2
done"""
    calls = [("restart", unit) for unit in (*services.web, *services.workers)]
    calls += [("stop", unit) for unit in services.workers]
    return Command.procedure(body, *(word for call in calls for word in call), title="denied")


def inspect(deploy: Deploy, services: Services, sha: str | None = None, *, tree: str = "index") -> Command:
    """Prints the state of a host in one call; changes nothing. `facts` parses it.

    *tree* is how local changes are found: by `content`, by git's `index`, or not at all (empty).
    """
    body = (
        _git_functions()
        + _service_functions(services)
        + script("process", "content", "show_units", "inspect")
    )
    values = (deploy.strategy, deploy.directory, state_directory(deploy), deploy.remote, sha or "", tree)
    return Command.procedure(body, *values, *services.web, *services.workers, title="inspect")


def show_units(services: Services) -> Command:
    """Prints the state and the main process of each unit; `inspect` prints much more, and asks git."""
    body = _service_functions(services) + script("process", "show_units") + '\nshow_units "$@"\n'
    return Command.procedure(body, *services.web, *services.workers, title="units")


def clock() -> Command:
    """Prints the host's Unix time. `clock` parses it."""
    return Command("date", "+%s.%N")


def log_counts(deploy: Deploy, before: str, after: str) -> Command:
    """Prints two numbers: the commits that only *before* contains, and those that only *after* contains."""
    return git(deploy, "rev-list", "--left-right", "--count", f"{checked_sha(before)}...{checked_sha(after)}")


def read_state(deploy: Deploy) -> Command:
    """Prints the host's state file, or nothing."""
    return Command.procedure(
        '[ ! -f "$1" ] || cat "$1"', state_directory(deploy) / "state.json", title="read-state"
    )


def _git_functions(tree: PurePosixPath | None = None) -> str:
    setting = f"tree={quote(tree)}\n" if tree else ""
    limited = '${git_limit:+timeout "$git_limit"}'
    return f'{setting}git_limit=\'\'\ngit_here() {{ {limited} {quoted(_GIT)} -C "$tree" "$@"; }}\n'


def _service_functions(services: Services) -> str:
    """Shell functions for the service manager. `show` runs without sudo, which often allows only the verbs."""
    words = services.command
    unprivileged = (
        words[2:] if words[:2] == ("sudo", "-n") else words[1:] if words[:1] == ("sudo",) else words
    )
    properties = "LoadState,ActiveState,MainPID,Result"
    return (
        f'service() {{ {quoted(words)} "$@"; }}\n'
        f'service_show() {{ {quoted(unprivileged)} show "$1" -p {properties}; }}\n'
    )
