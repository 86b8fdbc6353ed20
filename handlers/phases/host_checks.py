"""The checks of the hosts: tree, space, units, rights, and what each one's health endpoint answers now."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic

from handlers.core import Core
from handlers.environment.model import Environment, Host
from handlers.errors import RunbookError
from handlers.host.answer import Answer, ask
from handlers.host.facts import HostFacts, denied, inspect
from handlers.host.ssh import Shell
from handlers.phases.proof_checks import is_down, proof_checks
from handlers.release.phase import short
from handlers.release.planned import Check

FREE_BYTES_MIN = 100 * 1024 * 1024
"""A checkout writes up to the size of the tree, and a full disk leaves a tree of two revisions."""
_ASKED_MAX = 3
"""A unit that is active may be starting. Its health endpoint is asked so often when it refuses the connection."""
_AT_ONCE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class HostLook:
    """One host as it is now."""

    host: Host
    facts: HostFacts | None
    """None when it could not be inspected."""
    problem: str
    """Why it could not be inspected; empty when it could."""
    answer: Answer


async def look_at(core: Core, shells: Sequence[Shell]) -> list[HostLook]:
    """Inspect all hosts, and ask all health endpoints, concurrently. A failure is part of the result."""
    return list(await asyncio.gather(*(_look_at(core, shell) for shell in shells)))


async def _look_at(core: Core, shell: Shell) -> HostLook:
    sent = monotonic()
    facts, answer = await asyncio.gather(_facts(shell), ask(core, shell.host))
    for _ in range(_ASKED_MAX - 1):
        may_be_starting = isinstance(facts, HostFacts) and not is_down(core.environment, facts)
        if not answer.problem or not may_be_starting or monotonic() - sent > _ASKED_MAX * _AT_ONCE_SECONDS:
            break
        await asyncio.sleep(min(_AT_ONCE_SECONDS, core.environment.probe.interval_seconds))
        answer = await ask(core, shell.host)
    if isinstance(facts, str):
        return HostLook(host=shell.host, facts=None, problem=facts, answer=answer)
    return HostLook(host=shell.host, facts=facts, problem="", answer=answer)


async def _facts(shell: Shell) -> HostFacts | str:
    """The facts of a host, or why it could not be inspected."""
    try:
        return replace(await inspect(shell, tree="content"), denied=await denied(shell))
    except RunbookError as error:
        return str(error)


def host_checks(environment: Environment, look: HostLook, *, deploys: bool) -> list[Check]:
    """The checks of one host. Without *deploys* nothing is restarted: units and health must be good as they are."""
    name, facts = look.host.name, look.facts
    if facts is None:
        return [Check(name=name, good=False, sentence=look.problem)]
    checks = [
        Check(name=name, good=False, sentence=f"{name}: {fault}") for fault in host_faults(environment, facts)
    ]
    proofs = proof_checks(environment, look.host, facts, look.answer, deploys=deploys)
    if not checks and not proofs:
        units = ", ".join(f"{unit.name} {unit.active_state}" for unit in facts.units)
        free = facts.free_bytes // (1024 * 1024)
        tree = f"on {short(facts.revision)}, clean, answers with it"
        checks.append(Check(name=name, good=True, sentence=f"{tree}, {units}, {free} MB free"))
    # A web unit that is down is named with the answer that is missing for that reason.
    named = environment.services.web if look.answer.problem and is_down(environment, facts) else ()
    for unit in facts.units:
        if unit.loaded and not unit.active and unit.name not in named:
            sentence = f"{name}: {unit.name} is {unit.active_state}: "
            sentence += "a release starts it" if deploys else "start it first, only a release would"
            checks.append(Check(name=name, good=deploys, sentence=sentence, warns=deploys))
    return checks + proofs


def host_faults(environment: Environment, facts: HostFacts) -> list[str]:
    """Why a host is not ready for a release, one sentence for each fault; empty when it is ready."""
    faults = []
    directory = environment.deploy.directory
    if facts.problem:
        faults.append(f"{directory} is no usable checkout: {facts.problem}; see deploy.directory")
    if facts.dirt:
        # Only the names of the files, not the whole diff.
        files = textwrap.shorten(facts.dirt.partition("\ndiff --git")[0], 200, placeholder=" ...")
        faults.append(
            f"{directory} has local changes, which a release would overwrite: commit or discard them: {files}"
        )
    if facts.free_bytes < FREE_BYTES_MIN and not facts.problem:
        faults.append(
            f"only {facts.free_bytes // (1024 * 1024)} MB are free, 100 are needed: free disk space"
        )
    faults += [
        f"there is no unit {unit.name}: see services.web and services.workers"
        for unit in facts.units
        if not unit.loaded
    ]
    if facts.denied:
        manager = " ".join(environment.services.command)
        faults.append(
            f"the SSH user may not run `{manager}` with {', '.join(facts.denied)} without a password: "
            "allow exactly these in the sudoers file"
        )
    return faults


def common_revision(environment: Environment, facts: Mapping[str, HostFacts]) -> tuple[str, Check | None]:
    """The revision on which all hosts are, and the check of it: it is the rollback target of the whole fleet.

    Empty when they differ, and without a check where a host could not be inspected.
    """
    hosts_by_revision: dict[str, list[str]] = {}
    for name, known in facts.items():
        if known.revision:
            hosts_by_revision.setdefault(known.revision, []).append(name)
    if not hosts_by_revision or len(facts) < len(environment.hosts):
        return "", None
    if len(hosts_by_revision) > 1:
        hosts = "; ".join(
            f"{', '.join(names)} on {short(sha)}" for sha, names in sorted(hosts_by_revision.items())
        )
        sentence = f"hosts differ ({hosts}): deploy one revision to all of them first"
        return "", Check(name="revision", good=False, sentence=sentence)
    current = next(iter(hosts_by_revision))
    return current, Check(
        name="rollback", good=True, sentence=f"back to {short(current)}, which every host has"
    )
