"""One change of one host: recorded before and after, run exactly once, and verified on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from handlers.environment.model import Services
from handlers.errors import LockLost, TryAgain
from handlers.host import commands
from handlers.host.command import Command
from handlers.host.facts import HostFacts, inspect
from handlers.host.operations import OperationOutcome, OperationResult, run_operation
from handlers.host.ssh import Shell

FENCED = -1
"""The exit status, in the ledger, of an operation that the host refused because of its fencing token."""
_STOP_GRACE_SECONDS = 30
_BACK_STOP_SECONDS = 10
"""On the way back the bad web process must not wait longer for workers that do not stop. They are killed later."""
_CONTACT_SECONDS = 60
"""Once the workers of the fleet stop, a host that cannot be reached is waited for: a reboot takes half a minute. Before
that nothing has changed, and the way back tries again by itself."""
_REPETITIONS = ("", "r", "r2", "r3", "r4")
"""Suffixes of the operation's id. It is repeated when it was interrupted, or when its effect was undone since."""

Proof = Callable[[HostFacts], bool]


class Recorder(Protocol):
    """Records intentions before a change, and outcomes after it."""

    async def intend(self, operation_id: str, host: str, kind: str, command: str) -> None:
        """Record the operation before it starts."""

    async def confirm(self, operation_id: str, outcome: str, exit_status: int | None, output: str) -> None:
        """Record the outcome of the operation."""


@dataclass(frozen=True, kw_only=True)
class HostChange:
    """What every operation of one deploy shares. Repeating the same change attaches to the same operations."""

    release: str
    token: int
    revision: str
    """The full commit id to activate."""
    recorder: Recorder
    back: bool = False
    """Whether it is a rollback."""
    attempt: int | str = 1
    """Differs when the change is requested again. Within one attempt a failed operation stays failed."""


async def prepare(shell: Shell, change: HostChange) -> OperationResult:
    """Fetch the revision to the host and check that the switch can work; the running tree is not changed."""
    command = commands.prepare(shell.environment.deploy, change.revision, back=change.back)
    return await _run_verb(shell, change, "prepare", command, lambda facts: facts.present is True)


async def stop_workers(shell: Shell, change: HostChange) -> OperationResult:
    """Stop the workers and let them finish, so that the restart interrupts no event.

    On the way back their stop goes on by itself after a few seconds; `start_workers` kills those that hang.
    """
    services = shell.environment.services
    patience = min(_BACK_STOP_SECONDS, services.stop_seconds) if change.back else services.stop_seconds
    command = commands.units(services, "stop", services.workers, patience=patience)
    limit = services.stop_seconds + _STOP_GRACE_SECONDS
    workers = frozenset(services.workers)

    def stopped(facts: HostFacts) -> bool:
        return not any(unit.active for unit in facts.units if unit.name in workers)

    return await _run_verb(shell, change, "stop-workers", command, stopped, limit=limit)


async def activate(shell: Shell, change: HostChange) -> OperationResult:
    """Switch to the prepared revision, verify the tree, and restart the web units."""
    environment = shell.environment
    command = commands.activate(environment.deploy, change.revision, back=change.back)
    if environment.services.web:
        command = command.then(_restart(environment.services, environment.services.web, change))
    return await _run_verb(
        shell, change, "activate", command, lambda facts: facts.revision == change.revision and facts.clean
    )


async def start_workers(shell: Shell, change: HostChange) -> OperationResult:
    """Start the workers on the active revision."""
    services = shell.environment.services
    command = _restart(services, services.workers, change)
    workers = frozenset(services.workers)

    def started(facts: HostFacts) -> bool:
        return all(unit.active for unit in facts.units if unit.name in workers)

    return await _run_verb(shell, change, "start-workers", command, started)


def _restart(services: Services, names: tuple[str, ...], change: HostChange) -> Command:
    """On the way back a unit that does not stop in its time is killed: it runs the revision to leave."""
    patience = services.stop_seconds if change.back else None
    return commands.units(services, "restart", names, patience=patience)


def _kind(change: HostChange, verb: str) -> str:
    return f"back-{verb}" if change.back else verb


def operation_id(change: HostChange, verb: str, host: str) -> str:
    """The id of the operation for a verb of this change on a host; a suffix like `r` marks a repetition."""
    return f"{_stem(change, verb, host)}{change.attempt}"


def is_operation(operation: str, change: HostChange, verb: str, host: str) -> bool:
    """Whether *operation* is the id of this verb of the change, in any attempt and repetition."""
    return operation.startswith(_stem(change, verb, host))


def _stem(change: HostChange, verb: str, host: str) -> str:
    return f"{change.release}-{_kind(change, verb)}-{host}-"


async def _run_verb(
    shell: Shell, change: HostChange, verb: str, command: Command, proof: Proof, *, limit: float | None = None
) -> OperationResult:
    """Record the intention, run the operation, record its outcome, and check the *proof* on the host.

    Every verb is idempotent. So an operation that was interrupted, or whose effect was undone since (a rebooted host
    has started its workers), runs again under an id of its own.
    """
    host = shell.host.name
    result: OperationResult | None = None
    contact = None if change.back or verb == "prepare" else _CONTACT_SECONDS
    for suffix in _REPETITIONS:
        operation = f"{operation_id(change, verb, host)}{suffix}"
        await change.recorder.intend(operation, host, _kind(change, verb), str(command))
        try:
            result = await run_operation(
                shell,
                operation,
                change.token,
                command,
                release=change.release,
                limit=limit,
                contact_seconds=contact,
            )
        except LockLost as error:
            await change.recorder.confirm(operation, OperationOutcome.FAILED, FENCED, str(error))
            raise
        output = result.output or result.sentence
        await change.recorder.confirm(operation, result.outcome, result.exit_status, output)
        if result.done:
            # A fresh operation has just verified itself on the host. Another check would delay a rollback.
            if result.fresh or await _shows(shell, change, proof):
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
        sentence=f"{result.id} ended as done, but {host} does not have its effect",
    )


async def _shows(shell: Shell, change: HostChange, proof: Proof) -> bool:
    """Whether the host still has the effect. One that cannot be asked now has said that the operation is done."""
    try:
        # A rollback takes a tree as it was before the release.
        return proof(await inspect(shell, change.revision, tree="index" if change.back else "content"))
    except TryAgain:
        return True
