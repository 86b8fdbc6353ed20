"""One change on one host: intended, done exactly once, confirmed, and seen on the host before it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from handlers.errors import LockLost
from handlers.host import commands
from handlers.host.command import Command
from handlers.host.facts import HostFacts, inspect
from handlers.host.operations import OperationOutcome, OperationResult, run_operation
from handlers.host.ssh import Shell

FENCED = -1
"""The exit status in the ledger of an operation that a host refused to an older controller: no process ends so."""
_STOP_GRACE_SECONDS = 30

Proof = Callable[[HostFacts], bool]


class Recorder(Protocol):
    """Where intentions are written before a change and outcomes after it."""

    async def intend(self, operation_id: str, host: str, kind: str, command: str) -> None:
        """Before the change."""

    async def confirm(self, operation_id: str, outcome: str, exit_status: int | None, output: str) -> None:
        """After it."""


@dataclass(frozen=True, kw_only=True)
class HostChange:
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


async def prepare(shell: Shell, change: HostChange) -> OperationResult:
    """Bring the revision onto the host and make sure the switch can work; nothing that runs changes."""
    command = commands.prepare(shell.environment.deploy, change.revision, back=change.back)
    return await _carry_out(shell, change, "prepare", command, lambda facts: facts.present is True)


async def stop_workers(shell: Shell, change: HostChange) -> OperationResult:
    """Tell the workers to finish and stop, so that the restart cuts nothing in flight."""
    services = shell.environment.services
    command = commands.units(services, "stop", services.workers)
    limit = services.stop_seconds + _STOP_GRACE_SECONDS
    workers = frozenset(services.workers)

    def stopped(facts: HostFacts) -> bool:
        return not any(unit.active for unit in facts.units if unit.name in workers)

    return await _carry_out(shell, change, "stop-workers", command, stopped, limit=limit)


async def activate(shell: Shell, change: HostChange) -> OperationResult:
    """Switch to the prepared revision, prove the tree, and restart what serves it."""
    environment = shell.environment
    command = commands.activate(environment.deploy, change.revision, back=change.back)
    if environment.services.web:
        command = command.then(commands.units(environment.services, "restart", environment.services.web))
    return await _carry_out(
        shell, change, "activate", command, lambda facts: facts.revision == change.revision and facts.clean
    )


async def start_workers(shell: Shell, change: HostChange) -> OperationResult:
    """Start the workers on the revision that is now active."""
    services = shell.environment.services
    command = commands.units(services, "restart", services.workers)
    workers = frozenset(services.workers)

    def started(facts: HostFacts) -> bool:
        return all(unit.active for unit in facts.units if unit.name in workers)

    return await _carry_out(shell, change, "start-workers", command, started)


def _kind(change: HostChange, verb: str) -> str:
    return f"back-{verb}" if change.back else verb


def operation_id(change: HostChange, verb: str, host: str) -> str:
    """The name under which a verb of this change is done on a host; an `r` behind it means once more."""
    return f"{change.release}-{_kind(change, verb)}-{host}-{change.attempt}"


async def _carry_out(
    shell: Shell, change: HostChange, verb: str, command: Command, proof: Proof, *, limit: float | None = None
) -> OperationResult:
    """Intend, do, confirm, and look whether the host shows it.

    Every verb may be repeated, so one that was interrupted, or was done long ago and has been undone since (a
    host that was started anew has started its workers), is done once more under an id of its own.
    """
    host = shell.host.name
    result: OperationResult | None = None
    for again in ("", "r"):
        name = f"{operation_id(change, verb, host)}{again}"
        await change.recorder.intend(name, host, _kind(change, verb), str(command))
        try:
            result = await run_operation(
                shell, name, change.token, command, release=change.release, limit=limit
            )
        except LockLost as error:
            await change.recorder.confirm(name, OperationOutcome.FAILED, FENCED, str(error))
            raise
        said = result.output or result.sentence
        await change.recorder.confirm(name, result.outcome, result.exit_status, said)
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
