"""Anything that changes a host: detached from the connection, under an id, exactly once.

The host keeps a folder for each operation, which can be made only once: that is its token. Output and exit
status are files, so a cut connection loses nothing, and asking again with the same id attaches to what runs
or has run.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic

from handlers.errors import Fenced, OutcomeUnknown, Unreachable
from handlers.host import commands
from handlers.host.command import Command, Word
from handlers.host.sh import script
from handlers.host.ssh import Shell

log = logging.getLogger(__name__)

OnPoll = Callable[[str], Awaitable[None]]

_LOOK_TENTHS = 20
"""How long the host itself waits for the end before it answers a look."""
_BEGIN_SECONDS = 10
"""A runner that has not begun by then never will: its place is sealed, so that this is certain."""
_GRACE_SECONDS = 15
"""The host ends overdue work by itself; past this much more the controller does."""
_FIRST_CONTACT_SECONDS = 10
"""A host that cannot be reached for so long before anything was sent counts as unreachable."""
_RECONNECT_SECONDS = 0.5


class OperationOutcome(StrEnum):
    """What came of an operation. Unknown means: ask the host what is true before doing anything else."""

    DONE = "done"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class OperationResult:
    """How an operation ended, as far as anybody can know."""

    id: str
    outcome: OperationOutcome
    exit_status: int | None
    output: str
    sentence: str
    """One sentence for the ledger and for people."""
    interrupted: bool = False
    """It began, nobody wrote an end, and its process is certainly gone: nothing of it runs any more."""
    fresh: bool = field(default=False, compare=False)
    """Certainly begun by this very call: what it proved on the host is true now, not once."""

    @property
    def done(self) -> bool:
        """Whether it succeeded."""
        return self.outcome is OperationOutcome.DONE


@dataclass(frozen=True, kw_only=True)
class HostState:
    """The state file of a host: enough to go back with the database down."""

    release: str
    current: str
    previous: str
    """Where this host can go back to; going back does not move it."""
    token: int
    operation: str
    outcome: str
    exit_status: int
    at: str


async def run_operation(
    shell: Shell,
    operation_id: str,
    token: int,
    command: Command,
    *,
    release: str = "",
    limit: float | None = None,
    on_poll: OnPoll | None = None,
) -> OperationResult:
    """Run *command* on the host exactly once under *operation_id*, and follow it to its end.

    The same id again attaches. Raises Fenced when the host has seen a higher *token*. When this coroutine
    is cancelled the operation goes on; `cancel` ends it.
    """
    limit = limit or shell.environment.ssh.operation_seconds
    operation = _Operation(shell, commands.checked_id(operation_id), on_poll)
    begin = operation.start(token, command, release, limit)
    # Twice the limit: the host may wait that long for its lock before the work begins.
    deadline = monotonic() + 2 * limit + _GRACE_SECONDS
    silent_until = monotonic() + min(limit, _FIRST_CONTACT_SECONDS)
    sent = False
    trouble = "it took too long"
    while monotonic() < deadline:
        try:
            if result := await operation.look(begin):
                return result
        except (Unreachable, OutcomeUnknown) as error:
            trouble = str(error)
            log.warning("%s: %s", operation_id, trouble)
            if isinstance(error, OutcomeUnknown) and not sent:
                sent, silent_until = True, monotonic() + limit
            if monotonic() > silent_until:
                break
            await asyncio.sleep(_RECONNECT_SECONDS)
        else:
            sent, silent_until = True, monotonic() + limit
    if sent:
        return await operation.end(trouble)
    return _result(
        operation_id, OperationOutcome.UNREACHABLE, sentence=f"{operation_id} was not sent: {trouble}"
    )


async def cancel(shell: Shell, operation_id: str) -> None:
    """End a running operation and all processes of its work; one that has ended stays as it is."""
    await _Operation(shell, commands.checked_id(operation_id), None).cancel()


async def read_state(shell: Shell) -> HostState | None:
    """The host's state file; None on a host that no release has touched."""
    result = await shell.run(commands.read_state(shell.environment.deploy))
    return parse_state(result.stdout)


def parse_state(text: str) -> HostState | None:
    """The text of a state file as values; None for nothing or for what is not one."""
    try:
        return HostState(**json.loads(text))
    except (ValueError, TypeError):
        return None


class _Operation:
    """One operation on one host, whatever happens to the connection in between."""

    def __init__(self, shell: Shell, operation_id: str, on_poll: OnPoll | None) -> None:
        self._shell = shell
        self._host = shell.host.name
        self._id = operation_id
        self._on_poll = on_poll
        self._starting_since: float | None = None
        self._fresh = False

    def start(self, token: int, command: Command, release: str, limit: float) -> Command:
        """What starts it once. Repeating that is harmless, but whether it was sent must be known."""
        values = (token, max(1, round(limit)), release, script("process", "run"), command.script)
        return self._procedure(script("start"), *values, title="start", changes=True)

    async def look(self, begin: Command) -> OperationResult | None:
        """Start it if nobody has, wait a moment on the host, and judge where it stands; None while it runs.

        Starting is part of each look: it does nothing the second time and saves a round trip the first.
        """
        since = self._starting_since
        seal = since is not None and monotonic() - since > _BEGIN_SECONDS
        result = await self._shell.run(begin.then(self._wait(_LOOK_TENTHS, seal=seal)))
        if not result.good:
            return self._judge(f"ended unstarted {result.exit_status}", result.said)
        told, stand, output = (*result.stdout.split("\n", 2), "", "")[:3]
        self._fresh = self._fresh or told == "new"
        self._starting_since = (since or monotonic()) if stand == "starting" else None
        if self._on_poll is not None:
            await self._on_poll(output)
        return self._judge(stand, output)

    async def cancel(self) -> None:
        """End its work, and wait until that is so."""
        await self._shell.run(self._procedure(script("process", "cancel"), title="cancel"), limit=30)

    async def end(self, trouble: str) -> OperationResult:
        """Its time is over: end it, and look once more. Whoever cannot even look does not know."""
        try:
            await self.cancel()
            look = await self._shell.run(self._wait(5 * _LOOK_TENTHS))
            stand, _, output = look.stdout.partition("\n")
            if result := self._judge(stand, output):
                return result
            trouble = f"it is still {stand}"
        except (Unreachable, OutcomeUnknown) as error:
            trouble = str(error)
        sentence = f"nobody can say what came of {self._id} on {self._host}: {trouble}"
        return _result(self._id, OperationOutcome.UNKNOWN, sentence=sentence)

    def _wait(self, tenths: int, *, seal: bool = False) -> Command:
        return self._procedure(script("process", "wait"), tenths, "seal" if seal else "look", title="look")

    def _procedure(self, body: str, *values: Word, title: str, changes: bool = False) -> Command:
        state = commands.state_directory(self._shell.environment.deploy)
        return Command.procedure(body, state, self._id, *values, title=title, changes=changes)

    def _judge(self, stand: str, output: str) -> OperationResult | None:
        """What the host's answer means; None while it runs."""
        match stand.split():
            case ["ended", word, number]:
                return self._ended(word, int(number), output)
            case ["interrupted"]:
                sentence = f"{self._id} was interrupted on {self._host}: it began and its process is gone"
                unknown = OperationOutcome.UNKNOWN
                return _result(self._id, unknown, output=output, sentence=sentence, interrupted=True)
            case _:
                return None

    def _ended(self, word: str, status: int, output: str) -> OperationResult:
        if word == "fenced":
            raise Fenced(
                f"{self._host} has obeyed a newer controller (token {status}) and refuses {self._id}: "
                f"this one must stop changing things"
            )
        if word == "done":
            sentence = f"{self._id} is done on {self._host}"
            done = OperationOutcome.DONE
            return _result(self._id, done, status, output=output, sentence=sentence, fresh=self._fresh)
        last = output.strip().rsplit("\n", 1)[-1] or "it said nothing"
        reasons = {
            "failed": f"failed on {self._host} with status {status}: {last}",
            "overdue": f"took too long on {self._host} and was ended: {last}",
            "cancelled": f"was cancelled on {self._host}",
            "busy": f"could not begin on {self._host}: another operation held the host's lock all the time",
            "never": f"never began on {self._host}: nothing was done",
            "unstarted": f"could not be started on {self._host}: {last}",
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
