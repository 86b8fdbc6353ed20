"""Getting a revision onto the hosts: first what changes nothing, then one host, then growing groups.

A rollback is the same with the former revision: it asks the origin for nothing, and a host that fails does
not keep the others from going back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from handlers import commands
from handlers.commands import Command
from handlers.config import Host
from handlers.errors import LockLost, RunbookError, Unreachable
from handlers.facts import HostFacts, UnitFacts, commits_between, inspect, resolve
from handlers.operations import HostState, OperationOutcome, OperationResult, read_state, run_operation
from handlers.release import Conclusion, Verdict
from handlers.ssh import Shell

__all__ = [
    "Change",
    "HostFacts",
    "HostState",
    "Recorder",
    "UnitFacts",
    "activate",
    "commits_between",
    "deploy",
    "inspect",
    "prepare",
    "read_state",
    "resolve",
    "start_workers",
    "stop_workers",
]

FENCED = 75
"""The exit status in the ledger of an operation that a host refused to an older controller."""
_STOP_GRACE_SECONDS = 30

Healthy = Callable[[Sequence[Host]], Awaitable[Conclusion]]
"""Asks whether these hosts, which just got the revision, answer with it."""
Verb = Callable[[Shell, "Change"], Awaitable[OperationResult]]
Proof = Callable[[HostFacts], bool]


class Recorder(Protocol):
    """Where intentions are written before a change and outcomes after it."""

    async def intend(self, operation_id: str, host: str, kind: str, command: str) -> None:
        """Before the change."""

    async def confirm(self, operation_id: str, outcome: str, exit_status: int | None, output: str) -> None:
        """After it."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What every operation of one deploy shares. The same change again finds the same operations."""

    release: str
    token: int
    revision: str
    """The whole commit id to activate."""
    recorder: Recorder
    back: bool = False
    """A rollback."""
    attempt: int = 1
    """Counts the times a person asked for it anew: a failure stays one until somebody says so."""


async def prepare(shell: Shell, change: Change) -> OperationResult:
    """Bring the revision onto the host and make sure the switch can work; nothing that runs changes."""
    command = commands.prepare(shell.environment.deploy, change.revision, back=change.back)
    return await _carry_out(shell, change, "prepare", command, lambda facts: facts.present is True)


async def stop_workers(shell: Shell, change: Change) -> OperationResult:
    """Tell the workers to finish and stop, so that the restart cuts nothing in flight."""
    services = shell.environment.services
    command = commands.units(services, "stop", services.workers)
    limit = services.stop_seconds + _STOP_GRACE_SECONDS
    workers = frozenset(services.workers)

    def stopped(facts: HostFacts) -> bool:
        return not any(unit.active for unit in facts.units if unit.name in workers)

    return await _carry_out(shell, change, "stop-workers", command, stopped, limit=limit)


async def activate(shell: Shell, change: Change) -> OperationResult:
    """Switch to the prepared revision, prove the tree, and restart what serves it."""
    environment = shell.environment
    command = commands.activate(environment.deploy, change.revision, back=change.back)
    if environment.services.web:
        command = command.then(commands.units(environment.services, "restart", environment.services.web))
    return await _carry_out(
        shell, change, "activate", command, lambda facts: facts.revision == change.revision and facts.clean
    )


async def start_workers(shell: Shell, change: Change) -> OperationResult:
    """Start the workers on the revision that is now active."""
    services = shell.environment.services
    command = commands.units(services, "restart", services.workers)
    workers = frozenset(services.workers)

    def started(facts: HostFacts) -> bool:
        return all(unit.active for unit in facts.units if unit.name in workers)

    return await _carry_out(shell, change, "start-workers", command, started)


async def deploy(shells: Sequence[Shell], change: Change, healthy: Healthy | None = None) -> Conclusion:
    """Activate the revision: prepare everywhere, stop all workers, switch in groups, start all workers.

    Old and new workers never share the queue. Forward, the first failure ends it. Back, every host that can
    go back does, all at once. The conclusion's detail has `changed` (did anything that runs change?) and
    `hosts`, with each step's operation, outcome and sentence.
    """
    journal = _Journal(change)
    has_workers = bool(shells and shells[0].environment.services.workers)
    able = await journal.everywhere("prepare", prepare, shells)
    if journal.over:
        return journal.conclude("nothing that runs has changed")
    if journal.resumed and await _all_finished(shells, change):
        return journal.conclude(f"all {len(shells)} hosts were on {change.revision[:10]} already")
    journal.changed = True
    if has_workers:
        able = await journal.everywhere("stop workers", stop_workers, able)
        if journal.over:
            return journal.conclude("the workers may be stopped, no host was switched")
        if change.back:
            # A worker that will not stop is no reason to leave a host on the bad revision.
            able = [shell for shell in shells if journal.prepared(shell)]
    factor = len(able) if change.back else shells[0].environment.deploy.group_factor
    active: list[Shell] = []
    for group in _groups(able, factor, all_at_once=change.back):
        active += await journal.everywhere("activate", activate, group)
        if journal.over:
            return journal.conclude(f"{len(active)} of {len(shells)} hosts were switched")
        if healthy is not None and not change.back:
            seen = await healthy([shell.host for shell in group])
            if seen.verdict is not Verdict.PASS:
                return journal.conclude(seen.sentence, unhealthy=seen)
    if has_workers:
        await journal.everywhere("start workers", start_workers, active)
    return journal.conclude(f"{len(active)} of {len(shells)} hosts are on {change.revision[:10]}")


class _Journal:
    """What was done on which host, so that the conclusion can tell."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._hosts: dict[str, list[dict[str, object]]] = {}
        self._failures: list[str] = []
        self.changed = False
        self.resumed = True
        """Nothing was begun by this call so far: an earlier one has done it all."""

    @property
    def over(self) -> bool:
        """Forward, one failure is enough."""
        return bool(self._failures) and not self._change.back

    def prepared(self, shell: Shell) -> bool:
        """Whether the host has what it needs for the switch."""
        return any(
            step["step"] == "prepare" and step["outcome"] == OperationOutcome.DONE
            for step in self._hosts[shell.host.name]
        )

    async def everywhere(self, step: str, verb: Verb, shells: Sequence[Shell]) -> list[Shell]:
        """Do one thing on several hosts at once; those where it succeeded. All end before one raises."""
        outcomes = await asyncio.gather(
            *(verb(shell, self._change) for shell in shells), return_exceptions=True
        )
        good = []
        for shell, outcome in zip(shells, outcomes, strict=True):
            match outcome:
                case OperationResult():
                    self._note(shell, step, outcome.outcome, outcome.sentence, outcome.id)
                    self.resumed = self.resumed and not outcome.fresh
                    if outcome.done:
                        good.append(shell)
                case LockLost():
                    raise outcome
                case RunbookError():
                    kind = (
                        OperationOutcome.UNREACHABLE
                        if isinstance(outcome, Unreachable)
                        else OperationOutcome.UNKNOWN
                    )
                    self._note(shell, step, kind, str(outcome), "")
                case BaseException():
                    raise outcome
        return good

    def conclude(self, summary: str, *, unhealthy: Conclusion | None = None) -> Conclusion:
        """Pass only when nothing failed anywhere."""
        detail: dict[str, object] = {"changed": self.changed, "hosts": self._hosts}
        if unhealthy is not None:
            detail["probe"] = unhealthy.detail
            return Conclusion(verdict=unhealthy.verdict, sentence=summary, detail=detail)
        if self._failures:
            sentence = "; ".join([*self._failures, summary])
            return Conclusion(verdict=Verdict.FAIL, sentence=sentence, detail=detail)
        return Conclusion(verdict=Verdict.PASS, sentence=summary, detail=detail)

    def _note(
        self, shell: Shell, step: str, outcome: OperationOutcome, sentence: str, operation_id: str
    ) -> None:
        steps = self._hosts.setdefault(shell.host.name, [])
        steps.append(
            {"step": step, "outcome": outcome.value, "sentence": sentence, "operation": operation_id}
        )
        if outcome is not OperationOutcome.DONE:
            self._failures.append(sentence)


def _groups(shells: Sequence[Shell], factor: int, *, all_at_once: bool) -> Iterator[list[Shell]]:
    """One host alone, then groups that grow by *factor*."""
    size, begin = (len(shells) if all_at_once else 1), 0
    while begin < len(shells):
        yield list(shells[begin : begin + size])
        begin += size
        size *= max(1, factor)


async def _all_finished(shells: Sequence[Shell], change: Change) -> bool:
    """Whether this very change was carried through on every host and is still true there."""
    facts = await asyncio.gather(*(inspect(shell, change.revision) for shell in shells))
    return all(_finished(shell, seen, change) for shell, seen in zip(shells, facts, strict=True))


def _finished(shell: Shell, facts: HostFacts, change: Change) -> bool:
    workers = shell.environment.services.workers
    last = _operation_id(change, "start-workers" if workers else "activate", shell.host.name)
    return (
        facts.revision == change.revision
        and facts.clean
        and facts.state is not None
        and facts.state.operation in (last, f"{last}r")
        and facts.state.outcome == OperationOutcome.DONE
        and all(unit.active for unit in facts.units if unit.name in workers)
    )


def _kind(change: Change, verb: str) -> str:
    return f"back-{verb}" if change.back else verb


def _operation_id(change: Change, verb: str, host: str) -> str:
    return f"{change.release}-{_kind(change, verb)}-{host}-{change.attempt}"


async def _carry_out(
    shell: Shell, change: Change, verb: str, command: Command, proof: Proof, *, limit: float | None = None
) -> OperationResult:
    """Intend, do, confirm, and look whether the host shows it.

    Every verb may be repeated, so one that was interrupted, or was done long ago and has been undone since (a
    host that was started anew has started its workers), is done once more under an id of its own.
    """
    host = shell.host.name
    result: OperationResult | None = None
    for again in ("", "r"):
        operation_id = f"{_operation_id(change, verb, host)}{again}"
        await change.recorder.intend(operation_id, host, _kind(change, verb), str(command))
        try:
            result = await run_operation(
                shell, operation_id, change.token, command, release=change.release, limit=limit
            )
        except LockLost as error:
            await change.recorder.confirm(operation_id, OperationOutcome.FAILED, FENCED, str(error))
            raise
        said = result.output or result.sentence
        await change.recorder.confirm(operation_id, result.outcome, result.exit_status, said)
        if result.done:
            # What has just proven itself on the host is not asked again: each look costs a rollback time.
            if result.fresh or proof(await inspect(shell, change.revision)):
                return result
        elif not result.interrupted:
            return result
    assert result is not None
    if not result.done:
        return result
    return OperationResult(
        id=result.id,
        outcome=OperationOutcome.FAILED,
        exit_status=result.exit_status,
        output=result.output,
        sentence=f"{result.id} says it is done, but {host} does not show it",
    )
