"""The way back of one host to the previous revision: one try, repeated by the caller until the host is back.

Each host goes back by itself. Its workers are stopped only after it is known that it can be switched, and a host that
was never switched only gets its workers started. Bookkeeping, a hook, or a unit that hangs never stops the switch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from handlers.errors import Fenced, LockLost, OutcomeUnknown, RunbookError, Unreachable
from handlers.host.facts import HostFacts, inspect
from handlers.host.health import HostHealth
from handlers.host.operations import OperationOutcome, OperationResult, end_running
from handlers.host.ssh import Shell
from handlers.host.step import (
    HostChange,
    activate,
    is_operation,
    prepare,
    start_workers,
    stop_workers,
)
from handlers.release.phase import runs, short

GRACE_SECONDS = 5.0
"""What the deploy still does on a host may end by itself within this time; then the way back ends it."""
Prove = Callable[[Shell, Mapping[str, str]], Awaitable[HostHealth]]
"""Probes the host until it is healthy or its time limit has passed. The processes must be gone, by unit."""


@dataclass(frozen=True, kw_only=True)
class HostReturn:
    """How far one host is on its way back."""

    host: str
    back: bool = False
    """It answers with the previous revision, and its units run."""
    placed: bool = False
    """The previous revision is in place and its units were started; only the proof is missing."""
    gave_up: bool = False
    """It obeys another controller: no further try may change it."""
    away: bool = False
    """It could not be reached at the newest try."""
    attempt: str = "1"
    """Part of the operations' ids. Another controller with the same one attaches to what this one has started."""
    tries: int = 0
    revision: str | None = None
    """The revision in its newest answer, or else of its tree; None when neither was read."""
    units: str = ""
    """The states of its units at the newest try; empty once it is back."""
    operation: str = ""
    """The newest operation and its outcome."""
    sentence: str = "not tried yet"


async def go_back(
    shell: Shell, change: HostChange, before: HostReturn, *, leaving: str, prove: Prove
) -> HostReturn:
    """One try to bring a host back to the revision of *change* from the revision *leaving*.

    A fault of the host is part of the result. Raises LockLost when another controller has taken the lock.
    """
    now = replace(before, tries=before.tries + 1, back=False, away=False)
    try:
        facts = await inspect(shell, change.revision)
        now = _seen(now, facts)
        replaced: Mapping[str, str] = {}
        # Still starting after the whole time of the last proof: only another start can help.
        hangs = before.placed and any(unit.active_state == "activating" for unit in facts.units)
        if hangs or not (before.placed and _in_place(facts, change)):
            now, replaced = await _place(shell, change, now, facts, leaving, restart=hangs)
            if not now.placed:
                return _seen(now, await inspect(shell))
        return await _proven(shell, change, now, await prove(shell, replaced))
    except Fenced as error:
        return replace(now, gave_up=True, sentence=str(error))
    except LockLost:
        raise
    except RunbookError as error:
        away = isinstance(error, Unreachable | OutcomeUnknown)
        return replace(now, away=away, sentence=str(error))


async def leave(shell: Shell, change: HostChange, host: HostReturn) -> HostReturn:
    """Start the workers of a host that is not tried again, unless a switch is half done there. Raises LockLost."""
    workers = shell.environment.services.workers
    try:
        facts = await inspect(shell)
        is_stopped = any(not unit.active for unit in facts.units if unit.name in workers)
        if not is_stopped or not facts.clean:
            return host
        started = await start_workers(shell, change)
    except Fenced as error:
        return replace(host, gave_up=True, sentence=f"{host.sentence}; {error}")
    except LockLost:
        raise
    except RunbookError as error:
        return replace(host, sentence=f"{host.sentence}; its workers could not be started: {error}")
    word = "started again" if started.done else "stopped"
    return replace(host, sentence=f"{host.sentence}; its workers are {word}")


async def _place(
    shell: Shell, change: HostChange, now: HostReturn, facts: HostFacts, leaving: str, *, restart: bool
) -> tuple[HostReturn, Mapping[str, str]]:
    """Put the previous revision in place, unless an earlier try or an earlier controller has done so already.

    With *restart* it is done again all the same. Returns also the processes that were replaced, by unit.
    """
    services = shell.environment.services
    replaced: Mapping[str, str] = {}
    is_finished = _finished(facts, change, has_workers=bool(services.workers)) and _in_place(facts, change)
    if is_finished and not restart:
        return replace(now, placed=True, sentence="it was back already"), replaced
    web_runs = all(unit.active for unit in facts.units if unit.name in services.web)
    if restart or not (web_runs and _never_switched(facts, change, leaving)):
        # A hook or a unit of the deploy may hang, and would hold the host's lock until its time limit.
        keep = f"{change.release}-back-"
        await end_running(shell, facts.running, keep=keep, grace_seconds=GRACE_SECONDS)
        prepared = await prepare(shell, change)
        if not prepared.done:
            return _failed(now, prepared, "nothing was switched and no worker stopped"), replaced
        if services.workers:
            # A worker that does not stop must not keep the host on the revision that it leaves.
            now = _noted(now, await stop_workers(shell, change))
        activated = await activate(shell, change)
        if not activated.done:
            return _failed(now, activated, "its workers are stopped until the next try"), replaced
        now, replaced = _noted(now, activated), facts.processes() if activated.fresh else {}
    if services.workers:
        started = await start_workers(shell, change)
        if not started.done:
            return _failed(now, started, f"it is on {short(change.revision)} without workers"), replaced
        now = _noted(now, started)
    return replace(now, placed=True), replaced


async def _proven(shell: Shell, change: HostChange, now: HostReturn, health: HostHealth) -> HostReturn:
    now = replace(now, back=health.good, revision=health.revision or now.revision, sentence=health.summary)
    if health.good:
        # Its units were checked with its answer.
        return replace(now, units="")
    # A process that answers with another revision was not restarted: the next try switches again.
    placed = health.revision is None or runs(health.revision, change.revision)
    return _seen(replace(now, placed=placed), await inspect(shell))


def _in_place(facts: HostFacts, change: HostChange) -> bool:
    return facts.revision == change.revision and facts.clean and all(unit.active for unit in facts.units)


def _finished(facts: HostFacts, change: HostChange, *, has_workers: bool) -> bool:
    """Whether the last operation on the host ended this way back, in this process or in an earlier one."""
    last = "start-workers" if has_workers else "activate"
    return (
        facts.state is not None
        and facts.state.outcome == OperationOutcome.DONE
        and is_operation(facts.state.operation, change, last, facts.host)
    )


def _never_switched(facts: HostFacts, change: HostChange, leaving: str) -> bool:
    """Whether the host still is on the previous revision: it was not reached, or only prepared and its workers
    stopped.
    """
    was_switched = facts.state is not None and facts.state.current == leaving != change.revision
    return facts.revision == change.revision and facts.clean and not was_switched


def _seen(now: HostReturn, facts: HostFacts) -> HostReturn:
    units = ", ".join(f"{unit.name} {unit.active_state}" for unit in facts.units)
    return replace(now, units=units, revision=now.revision or facts.revision)


def _noted(now: HostReturn, result: OperationResult) -> HostReturn:
    return replace(now, operation=f"{result.id} {result.outcome}", sentence=result.sentence)


def _failed(now: HostReturn, result: OperationResult, consequence: str) -> HostReturn:
    return replace(_noted(now, result), sentence=f"{result.sentence}; {consequence}")
