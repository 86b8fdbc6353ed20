"""What runs on the hosts: read past the controller, from processes, trees and files."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Collection
from dataclasses import dataclass

import httpx

from rehearsal import processes
from rehearsal.hosts.host import UNITS, RehearsalHost
from rehearsal.running import in_thread

_STATE_FILE = ".tds-runbook/state.json"
_JOBS = ".tds-runbook/jobs/"


@dataclass(frozen=True, kw_only=True)
class HostState:
    """One host as it is."""

    name: str
    web: str | None
    """The revision in the health answer; None where none comes."""
    workers: tuple[str, ...]
    tree: str
    dirt: str
    """What git says has changed in the tree."""
    inactive: tuple[str, ...]
    """Units that do not run."""
    current: str
    """The revision in the host's state file; empty where it has none."""
    is_busy: bool
    """Whether an operation still runs."""


async def read(http: httpx.AsyncClient, host: RehearsalHost) -> HostState:
    """Look at one host."""
    answer: dict[str, object] = {}
    with contextlib.suppress(httpx.HTTPError, ValueError):
        answer = (await http.get(f"http://127.0.0.1:{host.http_port}/health")).json()
    return await in_thread(lambda: _read(host, answer))


def _read(host: RehearsalHost, answer: dict[str, object]) -> HostState:
    workers = answer.get("workers")
    revision = answer.get("revision")
    state: dict[str, object] = {}
    with contextlib.suppress(OSError, ValueError):
        state = json.loads((host.folder / _STATE_FILE).read_text(encoding="utf-8"))
    jobs = f"{host.folder}/{_JOBS}"
    running = processes.with_variable("HOME", str(host.folder), word=jobs)
    tree, dirt = _tree(host)
    return HostState(
        name=host.name,
        web=revision if isinstance(revision, str) else None,
        workers=tuple(workers["revisions"]) if isinstance(workers, dict) else (),
        tree=tree,
        dirt=dirt,
        inactive=tuple(unit for unit in UNITS if host.systemctl("is-active", unit).returncode),
        current=str(state.get("current", "")),
        is_busy=bool(running),
    )


def disagreements(host: HostState, expected: Collection[str]) -> list[str]:
    """What is wrong on the host, which should run one of the *expected* revisions as a whole; a sentence each."""
    found = []
    if host.web is None:
        found.append(f"{host.name} does not answer")
    elif host.web not in expected:
        found.append(f"{host.name} runs {host.web[:7]}, which the ledger does not name")
    if host.web is not None and set(host.workers) != {host.web}:
        names = ", ".join(revision[:7] for revision in host.workers) or "none"
        found.append(f"{host.name} runs {host.web[:7]}, but its workers are of: {names}")
    if host.tree != host.web:
        found.append(f"{host.name} runs {(host.web or 'nothing')[:7]}, but its tree is {host.tree[:7]}")
    if host.dirt:
        found.append(f"the tree of {host.name} has changes: {host.dirt[:200]}")
    if host.inactive:
        found.append(f"on {host.name} these units do not run: {', '.join(host.inactive)}")
    if host.current not in ("", host.tree):
        found.append(f"the state file of {host.name} names {host.current[:7]}, its tree is {host.tree[:7]}")
    if host.is_busy:
        found.append(f"an operation still runs on {host.name}")
    return found


def _tree(host: RehearsalHost) -> tuple[str, str]:
    """The revision whose files lie where the units run from, and what differs from it."""
    if host.strategy == "checkout":
        return _git(host, "rev-parse", "HEAD"), _git(host, "status", "--porcelain")
    release = host.checkout.resolve()
    revision = (release / "REVISION").read_text(encoding="utf-8").strip()
    own_index = {"GIT_INDEX_FILE": str(host.folder / "tmp" / "consistency.index")}
    _git(host, "read-tree", revision, **own_index)
    return revision, _git(host, "--work-tree", str(release), "diff", "--name-status", **own_index)


def _git(host: RehearsalHost, *words: str, **variables: str) -> str:
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(host.repository), *words],
        capture_output=True,
        text=True,
        check=False,
        env=host.environment | variables,
    )
    return done.stdout.strip() or done.stderr.strip()
