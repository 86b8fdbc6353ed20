"""Every command that a host is sent, as a value. `ssh` runs it; `operations` runs it detached and exactly once.

Pure: standard library only, so that the settings are imported for the type checker alone.
"""

from __future__ import annotations

import re
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
    # Without an identity git looks up the host's name at each change of a ref: ten seconds without a DNS.
    "-c", "user.name=tds-runbook", "-c", "user.email=tds-runbook@localhost", "-c", "gc.auto=0",
    "-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=20",
)  # fmt: skip


def checked_sha(revision: str) -> str:
    """*revision* when it is a whole commit id; everything that changes a host takes nothing less."""
    if not _SHA.fullmatch(revision):
        raise Refused(f"{revision!r} is not a whole commit id (40 hexadecimal digits): resolve it first")
    return revision


def checked_revision(revision: str) -> str:
    """*revision* when it can be a commit id or the name of a branch or tag; refused at the door otherwise."""
    strange = (
        not _REF.fullmatch(revision)
        or ".." in revision
        or "//" in revision
        or revision.endswith((".", "/", ".lock"))
    )
    if strange:
        raise Refused(
            f"{revision!r} is no revision: give a commit id (7 to 40 hexadecimal digits), a branch or a tag"
        )
    return revision


def checked_id(operation_id: str) -> str:
    """*operation_id* when it can name a folder on a host."""
    if not _ID.fullmatch(operation_id):
        raise Refused(f"{operation_id!r} cannot name an operation: letters, digits, . _ - only")
    return operation_id


def state_directory(deploy: Deploy) -> PurePosixPath:
    """Where the host keeps its state file, lock and operations."""
    return PurePosixPath(deploy.state_directory)


def repository(deploy: Deploy) -> PurePosixPath:
    """The git repository on the host: the checkout itself, or `repository` beside `releases`."""
    return deploy.directory if deploy.strategy == "checkout" else deploy.directory / "repository"


def git(deploy: Deploy, *words: Word, changes: bool = False) -> Command:
    """One git command in the host's repository."""
    return Command(*_GIT, "-C", repository(deploy), *words, changes=changes)


def fetch(deploy: Deploy) -> Command:
    """Bring the released branch up to date; an exact id may not be asked for, servers refuse that."""
    tracking = f"refs/remotes/{deploy.remote}/{deploy.branch}"
    return git(
        deploy,
        "fetch",
        "--quiet",
        "--tags",
        "--force",
        deploy.remote,
        f"+refs/heads/{deploy.branch}:{tracking}",
    )


def commit_of(deploy: Deploy, revision: str) -> Command:
    """The whole commit id that *revision* means: the origin's branch or a tag, never a stale local branch."""
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
    """One line for each commit that one has and the other has not: `>` comes with *after*, `<` goes."""
    between = f"{checked_sha(before)}...{checked_sha(after)}"
    pretty = "--format=%m%h %s"
    return git(
        deploy, "log", "--left-right", "--no-decorate", "--abbrev=7", f"--max-count={limit}", pretty, between
    )


def prepare(deploy: Deploy, sha: str, *, back: bool = False) -> Command:
    """Fetch and verify a revision, and make sure the switch can work; nothing that runs is touched."""
    body = _git_functions() + script("tree", f"prepare_{deploy.strategy}")
    way = "back" if back else "forward"
    values: tuple[Word, ...] = (deploy.directory, checked_sha(sha), deploy.remote, deploy.branch, way)
    return Command.procedure(body, *values, *deploy.before_activate, title="prepare", changes=True)


def activate(deploy: Deploy, sha: str, *, back: bool = False) -> Command:
    """Switch to a prepared revision and prove it, then run the hooks; the units are restarted by `units`."""
    body = _git_functions() + script("tree", f"activate_{deploy.strategy}")
    values = (deploy.directory, checked_sha(sha), "back" if back else "forward", *deploy.after_activate)
    return Command.procedure(body, *values, title="activate", changes=True)


def units(services: Services, verb: str, names: tuple[str, ...]) -> Command:
    """Stop or restart units and look at each afterwards; restarting forgets former failures first."""
    if verb not in ("stop", "restart"):
        raise ValueError(f"units can be stopped and restarted, not {verb!r}")
    return Command.procedure(
        _service_functions(services) + script("units"), verb, *names, title="units", changes=True
    )


def denied(services: Services) -> Command | None:
    """Tells what of a deploy sudo would not let the user do, without doing it; None where no sudo decides that."""
    words = services.command
    if PurePosixPath(words[0]).name != "sudo":
        return None
    asking = quoted((words[0], "-l", *words[1:]))
    body = f"""while [ $# -gt 1 ]; do
    {asking} "$1" "$2" >/dev/null 2>&1 </dev/null || printf '%s %s\\n' "$1" "$2"
    shift 2
done"""
    wishes = [("restart", unit) for unit in (*services.web, *services.workers)]
    wishes += [("stop", unit) for unit in services.workers]
    return Command.procedure(body, *(word for wish in wishes for word in wish), title="denied")


def logs(services: Services, unit: str, since: int, until: int, lines: int) -> Command:
    """The end of what a unit wrote between two moments, by the environment's own command."""
    values = {"{unit}": unit, "{since}": str(since), "{until}": str(until), "{lines}": str(lines)}
    words = []
    for word in services.logs:
        for name, value in values.items():
            word = word.replace(name, value)
        words.append(word)
    return Command(*words)


def inspect(deploy: Deploy, services: Services, sha: str | None = None) -> Command:
    """One look at everything that matters on a host; changes nothing."""
    body = _git_functions() + _service_functions(services) + script("inspect")
    values = (deploy.strategy, deploy.directory, state_directory(deploy), deploy.remote, sha or "")
    return Command.procedure(body, *values, *services.web, *services.workers, title="inspect")


def read_state(deploy: Deploy) -> Command:
    """The host's state file, or nothing."""
    return Command.procedure(
        '[ ! -f "$1" ] || cat "$1"', state_directory(deploy) / "state.json", title="read-state"
    )


def _git_functions(tree: PurePosixPath | None = None) -> str:
    setting = f"tree={quote(tree)}\n" if tree else ""
    return f'{setting}git_here() {{ {quoted(_GIT)} -C "$tree" "$@"; }}\n'


def _service_functions(services: Services) -> str:
    """The manager's verbs, and its `show` without sudo, which is often limited to the verbs."""
    words = services.command
    looking = words[2:] if words[:2] == ("sudo", "-n") else words[1:] if words[:1] == ("sudo",) else words
    properties = "LoadState,ActiveState,MainPID,Result"
    return (
        f'service() {{ {quoted(words)} "$@"; }}\n'
        f'service_show() {{ {quoted(looking)} show "$1" -p {properties}; }}\n'
    )
