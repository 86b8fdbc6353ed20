"""Operations that change a host: detached from the connection, under an id, exactly once.

The host keeps a folder for each operation. `mkdir` is atomic, so an operation starts only once. Output and exit status
are files, so a lost connection loses nothing. The same id again attaches to the running or finished operation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic

from handlers.environment.redact import known_secrets, redact_text
from handlers.errors import Fenced, KeyRefused, OutcomeUnknown, Unreachable
from handlers.host import commands
from handlers.host.command import Command, Word
from handlers.host.sh import script
from handlers.host.ssh import Shell

log = logging.getLogger(__name__)

OnPoll = Callable[[str], Awaitable[None]]

_POLL_TENTHS = 20
"""How long the host waits for the end of the operation before it answers (long poll)."""
_BEGIN_SECONDS = 10
"""A runner that has not started after this time is sealed: then it is certain that it never starts."""
_GRACE_SECONDS = 15
"""The host itself ends overdue work. The controller ends it when this time has passed too."""
_FIRST_CONTACT_SECONDS = 10
"""A host that cannot be reached for this time, before anything was sent, counts as unreachable."""
_RECONNECT_SECONDS = 0.5


class OperationOutcome(StrEnum):
    """The outcome of an operation. After UNKNOWN, inspect the host before any other change."""

    DONE = "done"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class OperationResult:
    """The outcome of an operation, with its output."""

    id: str
    outcome: OperationOutcome
    exit_status: int | None
    output: str
    sentence: str
    """One sentence for the ledger and for people."""
    interrupted: bool = False
    """It started, has no exit status, and its process is gone: nothing of it still runs."""
    fresh: bool = field(default=False, compare=False)
    """It was started by this call, so what it verified on the host is still true."""

    @property
    def done(self) -> bool:
        """Whether it succeeded."""
        return self.outcome is OperationOutcome.DONE


async def run_operation(
    shell: Shell,
    operation_id: str,
    token: int,
    command: Command,
    *,
    release: str = "",
    limit: float | None = None,
    contact_seconds: float | None = None,
    on_poll: OnPoll | None = None,
) -> OperationResult:
    """Run *command* on the host exactly once under *operation_id*, and wait for its end.

    *contact_seconds* is how long a host is waited for that cannot be reached (default: 10 s), or that does not accept
    our key (default: not at all, before it was sent). The same id again attaches. Raises Fenced when the host obeyed
    a higher *token*. When it is cancelled the operation continues; `cancel` ends it.
    """
    limit = limit or shell.environment.ssh.operation_seconds
    operation = _Operation(shell, commands.checked_id(operation_id), on_poll)
    start = operation.start(token, command, release, limit)
    # Twice the limit: the host may wait that long for its lock before the work begins.
    deadline = monotonic() + 2 * limit + _GRACE_SECONDS
    silent_until = monotonic() + min(limit, contact_seconds or _FIRST_CONTACT_SECONDS)
    sent = False
    problem = "it took too long"
    while monotonic() < deadline:
        try:
            if result := await operation.poll(start):
                return result
        except (Unreachable, OutcomeUnknown, KeyRefused) as error:
            if isinstance(error, KeyRefused) and not (sent or contact_seconds):
                raise
            problem = str(error)
            log.warning("%s: %s", operation_id, problem)
            if isinstance(error, OutcomeUnknown) and not sent:
                sent, silent_until = True, monotonic() + limit
            if monotonic() > silent_until:
                break
            await asyncio.sleep(_RECONNECT_SECONDS)
        else:
            sent, silent_until = True, monotonic() + limit
    if sent:
        return await operation.end(problem)
    return _result(
        operation_id, OperationOutcome.UNREACHABLE, sentence=f"{operation_id} was not sent: {problem}"
    )


async def cancel(shell: Shell, operation_id: str) -> None:
    """End a running operation with all its processes; no effect on one that has ended."""
    await _Operation(shell, commands.checked_id(operation_id), None).cancel()


async def end_running(shell: Shell, running: Sequence[str], *, keep: str, grace_seconds: float) -> None:
    """End the *running* operations of other controllers, which hold or await the host's lock.

    Each has *grace_seconds* to end by itself. Those whose id begins with *keep* go on. Raises Unreachable.
    """
    for id_ in running:
        if not id_.startswith(keep):
            await _Operation(shell, commands.checked_id(id_), None).end_soon(grace_seconds)


async def ask(shell: Shell, operation_id: str) -> OperationResult:
    """The outcome of an operation that another controller may have started; starts nothing.

    One that the host does not know was never sent. One that still runs is UNKNOWN. Raises Unreachable.
    """
    operation = _Operation(shell, commands.checked_id(operation_id), None)
    try:
        return await operation.look()
    except Fenced as error:
        return _result(operation_id, OperationOutcome.FAILED, -1, sentence=str(error))


class _Operation:
    """One operation on one host; it survives lost connections."""

    def __init__(self, shell: Shell, operation_id: str, on_poll: OnPoll | None) -> None:
        self._shell = shell
        self._host = shell.host.name
        self._id = operation_id
        self._on_poll = on_poll
        self._starting_since: float | None = None
        self._fresh = False

    def start(self, token: int, command: Command, release: str, limit: float) -> Command:
        """The command that starts it. It is idempotent, but counts as a change, so that a lost send is noticed."""
        values = (token, max(1, round(limit)), release, script("process", "run"), command.script)
        return self._procedure(script("start"), *values, title="start", changes=True)

    async def poll(self, start: Command) -> OperationResult | None:
        """Start it if necessary, wait up to 2 s on the host, and return its result; None while it runs.

        Every poll includes the start: it has no effect the second time, and saves a round trip the first.
        """
        since = self._starting_since
        seal = since is not None and monotonic() - since > _BEGIN_SECONDS
        result = await self._shell.run(start.then(self._wait(_POLL_TENTHS, seal=seal)))
        if not result.good:
            return self._parse(f"ended unstarted {result.exit_status}", result.summary)
        started, state, output = (*result.stdout.split("\n", 2), "", "")[:3]
        self._fresh = self._fresh or started == "new"
        self._starting_since = (since or monotonic()) if state == "starting" else None
        if self._on_poll is not None:
            await self._on_poll(output)
        return self._parse(state, output)

    async def look(self) -> OperationResult:
        """Its result, as the host knows it."""
        answer = await self._shell.run(self._wait(0))
        state, _, output = answer.stdout.partition("\n")
        if state == "absent":
            sentence = f"{self._id} was never sent to {self._host}: nothing was done"
            return _result(self._id, OperationOutcome.FAILED, sentence=sentence)
        return self._parse(state, output) or _result(
            self._id, OperationOutcome.UNKNOWN, sentence=f"{self._id} is still {state} on {self._host}"
        )

    async def end_soon(self, grace_seconds: float) -> None:
        """Wait for its end, then end its work."""
        answer = await self._shell.run(self._wait(round(grace_seconds * 10)))
        if not answer.stdout.startswith("ended"):
            await self.cancel()

    async def cancel(self) -> None:
        """End its work, and wait for the end."""
        await self._shell.run(self._procedure(script("process", "cancel"), title="cancel"), limit=30)

    async def end(self, problem: str) -> OperationResult:
        """Cancel it after its timeout and return its result; the outcome is UNKNOWN if the host cannot be asked."""
        try:
            await self.cancel()
            answer = await self._shell.run(self._wait(5 * _POLL_TENTHS))
            state, _, output = answer.stdout.partition("\n")
            if result := self._parse(state, output):
                return result
            problem = f"it is still {state}"
        except (Unreachable, OutcomeUnknown, KeyRefused) as error:
            problem = str(error)
        sentence = f"outcome of {self._id} on {self._host} is unknown: {problem}"
        return _result(self._id, OperationOutcome.UNKNOWN, sentence=sentence)

    def _wait(self, tenths: int, *, seal: bool = False) -> Command:
        return self._procedure(script("process", "wait"), tenths, "seal" if seal else "look", title="look")

    def _procedure(self, body: str, *values: Word, title: str, changes: bool = False) -> Command:
        state = commands.state_directory(self._shell.environment.deploy)
        return Command.procedure(body, state, self._id, *values, title=title, changes=changes)

    def _parse(self, state: str, output: str) -> OperationResult | None:
        """The result from the state line that the host printed; None while it runs.

        A hook may have printed a secret, and the output goes into the ledger.
        """
        output = redact_text(output, known_secrets(self._shell.environment))
        match state.split():
            case ["ended", word, number]:
                return self._ended(word, int(number), output)
            case ["interrupted"]:
                sentence = f"{self._id} was interrupted on {self._host}: it started and its process is gone"
                unknown = OperationOutcome.UNKNOWN
                return _result(self._id, unknown, output=output, sentence=sentence, interrupted=True)
            case _:
                return None

    def _ended(self, word: str, status: int, output: str) -> OperationResult:
        if word == "fenced":
            raise Fenced(
                f"{self._host} has obeyed a newer controller (token {status}) and refuses {self._id}. "
                f"This controller must stop"
            )
        if word == "done":
            sentence = f"{self._id} is done on {self._host}"
            done = OperationOutcome.DONE
            return _result(self._id, done, status, output=output, sentence=sentence, fresh=self._fresh)
        last_line = output.strip().rsplit("\n", 1)[-1] or "no output"
        reasons = {
            "failed": f"failed on {self._host} with status {status}: {last_line}",
            "overdue": f"took too long on {self._host} and was ended: {last_line}",
            "cancelled": f"was cancelled on {self._host}",
            "busy": f"could not start on {self._host}: another operation held the host's lock all the time",
            "never": f"never started on {self._host}: nothing was done",
            "unstarted": f"could not be started on {self._host}: {last_line}",
        }
        sentence = f"{self._id} {reasons.get(word, f'ended on {self._host} as {word}')}"
        return _result(self._id, OperationOutcome.FAILED, status, output=output, sentence=sentence)


def _result(
    operation_id: str,
    outcome: OperationOutcome,
    exit_status: int | None = None,
    *,
    sentence: str,
    output: str = "",
    interrupted: bool = False,
    fresh: bool = False,
) -> OperationResult:
    return OperationResult(
        id=operation_id,
        outcome=outcome,
        exit_status=exit_status,
        output=output,
        sentence=sentence,
        interrupted=interrupted,
        fresh=fresh,
    )
