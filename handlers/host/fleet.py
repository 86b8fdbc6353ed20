"""Rolling a revision out to the hosts: prepare all of them, then switch one host, then growing groups.

`way_back` takes the hosts back, each by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from handlers.environment.model import Host
from handlers.errors import DatabaseDown, LockLost, LoginRefused, RunbookError, Unreachable
from handlers.host.facts import HostFacts, inspect
from handlers.host.health import FleetHealth
from handlers.host.operations import OperationOutcome, OperationResult, ask
from handlers.host.ssh import Shell
from handlers.host.step import (
    HostChange,
    activate,
    is_operation,
    operation_id,
    prepare,
    start_workers,
    stop_workers,
)
from handlers.release.note import StepNote
from handlers.release.phase import Verdict, short

Healthy = Callable[[Sequence[Host]], Awaitable[FleetHealth]]
"""Probes hosts that were just switched: whether they answer with the revision."""
MustPause = Callable[[], Awaitable[bool]]
"""Asked before each step that begins something new: whether a person wants the roll-out to pause."""
Verb = Callable[[Shell, HostChange], Awaitable[OperationResult]]
UNIT_FAILED = 82
"""The exit status of an operation after which a unit does not run."""


@dataclass(frozen=True, kw_only=True)
class RollOut:
    """The result of a roll-out, and the steps on each host."""

    verdict: Verdict
    sentence: str
    steps: dict[str, tuple[StepNote, ...]]
    touched_hosts: bool
    """Whether the running tree or processes of a host may have changed."""
    blames_revision: bool = False
    """Whether a failure is evidence against the revision: its web process did not start, or answers badly."""
    paused: bool = False
    """Whether it ended early because a person wanted it to."""


async def _never() -> bool:
    return False


async def roll_out(
    shells: Sequence[Shell],
    change: HostChange,
    healthy: Healthy | None = None,
    must_pause: MustPause = _never,
    before_workers: Callable[[], Awaitable[None]] | None = None,
) -> RollOut:
    """Activate the revision: prepare all hosts, stop all workers, switch in groups, start all workers.

    *before_workers* is awaited right before the workers start.

    Old and new workers never run at the same time, except while it is paused. It ends at the first failure. Raises
    LockLost when a host refuses the fencing token, and DatabaseDown when an intent or an outcome could not be recorded:
    the same call continues from there.
    """
    journal = _Journal(change)
    has_workers = bool(shells and shells[0].environment.services.workers)
    able = await journal.run_on("prepare", prepare, shells)
    if journal.must_stop:
        return journal.conclude("nothing that runs has changed")
    if journal.only_attached and len(able) == len(shells) and await _all_finished(shells, change):
        return journal.conclude(f"all {len(shells)} hosts were on {short(change.revision)} already")
    if await _pauses(must_pause, able, journal):
        return await _pause(shells, journal, 0)
    journal.touched_hosts = True
    if has_workers:
        able = await journal.run_on("stop workers", stop_workers, able)
        if journal.must_stop:
            return journal.conclude("the workers may be stopped, no host was switched")
    if ended := await _switch_groups(able, journal, healthy, must_pause):
        return ended
    if has_workers:
        if before_workers is not None:
            await before_workers()
        await journal.run_on("start workers", start_workers, able)
    return journal.conclude(f"{len(able)} of {len(shells)} hosts are on {short(change.revision)}")


async def _switch_groups(
    shells: Sequence[Shell], journal: _Journal, healthy: Healthy | None, must_pause: MustPause
) -> RollOut | None:
    """Switch the hosts in groups, and probe each group. The end of the roll-out if it may not go on."""
    done = 0
    for group in _groups(shells, shells[0].environment.deploy.group_factor):
        if await _pauses(must_pause, shells[done:], journal):
            return await _pause(shells, journal, done)
        done += len(await journal.run_on("activate", activate, group))
        if journal.must_stop:
            return journal.conclude(f"{done} of {len(shells)} hosts were switched")
        if healthy is not None:
            health = await healthy([shell.host for shell in group])
            if health.verdict is not Verdict.PASS:
                journal.blames_revision = journal.blames_revision or health.blames_revision
                return journal.conclude(health.sentence, verdict=health.verdict)
    return None


async def _pauses(must_pause: MustPause, rest: Sequence[Shell], journal: _Journal) -> bool:
    """Whether to pause before the hosts *rest*. A switch that an earlier controller has begun is finished first."""
    return await must_pause() and not any(
        await asyncio.gather(
            *(_has_begun(shell, journal.change) for shell in rest if shell.host.name in journal.attached)
        )
    )


async def _has_begun(shell: Shell, change: HostChange) -> bool:
    """Whether the switch of a host has begun. One that cannot be asked counts as begun."""
    try:
        switch = await ask(shell, operation_id(change, "activate", shell.host.name))
    except RunbookError:
        return True
    # Only an operation that never started has failed without an exit status.
    return switch.outcome is not OperationOutcome.FAILED or switch.exit_status is not None


async def _pause(shells: Sequence[Shell], journal: _Journal, switched: int) -> RollOut:
    """End the roll-out with every worker running, each on the revision of its own host.

    No host stands without workers while a person decides. Both revisions then share the queue, as they do on the way
    back.
    """
    workers = shells[0].environment.services.workers
    stopped = [shell for shell in shells if workers and await _has_stopped_workers(shell)]
    if not journal.touched_hosts and not stopped:
        return journal.conclude("nothing that runs has changed", verdict=Verdict.INCONCLUSIVE, paused=True)
    journal.touched_hosts = True
    await journal.run_on("start workers", start_workers, stopped)
    summary = f"{switched} of {len(shells)} hosts are on {short(journal.change.revision)}"
    if workers and not journal.must_stop:
        summary += ", the workers of all hosts run"
    return journal.conclude(summary, verdict=Verdict.INCONCLUSIVE, paused=True)


async def _has_stopped_workers(shell: Shell) -> bool:
    """Whether a worker unit is not active. A host that cannot be asked is told to start them."""
    try:
        facts = await inspect(shell, tree="")
    except RunbookError:
        return True
    return any(not unit.active for unit in facts.units if unit.name in shell.environment.services.workers)


class _Journal:
    """The steps and failures on each host, for the conclusion."""

    def __init__(self, change: HostChange) -> None:
        self.change = change
        self.attached: set[str] = set()
        """The hosts on which an earlier controller had started an operation of this change."""
        self._steps: dict[str, list[StepNote]] = {}
        self._failures: list[str] = []
        self.touched_hosts = False
        self.blames_revision = False
        self.only_attached = True
        """Whether this call has started no operation so far, and only attached to those of an earlier one."""

    @property
    def must_stop(self) -> bool:
        """Whether the roll-out must stop: after a failure."""
        return bool(self._failures)

    async def run_on(self, step: str, verb: Verb, shells: Sequence[Shell]) -> list[Shell]:
        """Run a step on several hosts concurrently; returns those where it succeeded. Raises after all have ended."""
        outcomes = await asyncio.gather(
            *(verb(shell, self.change) for shell in shells), return_exceptions=True
        )
        good = []
        for shell, outcome in zip(shells, outcomes, strict=True):
            match outcome:
                case OperationResult():
                    self._note(shell, step, outcome.outcome, outcome.sentence, outcome.id)
                    self.only_attached = self.only_attached and not outcome.fresh
                    if not outcome.fresh:
                        self.attached.add(shell.host.name)
                    if step == "activate" and outcome.exit_status == UNIT_FAILED:
                        self.blames_revision = True
                    if outcome.done:
                        good.append(shell)
                case LockLost() | DatabaseDown() | LoginRefused():
                    # The ledger being away says nothing about the host: the whole step is repeated when it is back.
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

    def conclude(self, summary: str, *, verdict: Verdict = Verdict.PASS, paused: bool = False) -> RollOut:
        """The result: FAIL after any failure, else *verdict*. The sentence has the failures and *summary*."""
        return RollOut(
            verdict=Verdict.FAIL if self._failures else verdict,
            sentence="; ".join([*(failure.rstrip(".") for failure in self._failures), summary]),
            steps={host: tuple(steps) for host, steps in self._steps.items()},
            touched_hosts=self.touched_hosts,
            blames_revision=self.blames_revision,
            paused=paused and not self._failures,
        )

    def _note(
        self, shell: Shell, step: str, outcome: OperationOutcome, sentence: str, operation_id: str
    ) -> None:
        self._steps.setdefault(shell.host.name, []).append(
            StepNote(step=step, outcome=outcome.value, sentence=sentence, operation=operation_id)
        )
        if outcome is not OperationOutcome.DONE:
            self._failures.append(sentence)


def _groups(shells: Sequence[Shell], factor: int) -> Iterator[list[Shell]]:
    """One host alone, then groups that grow by *factor*."""
    size, start = 1, 0
    while start < len(shells):
        yield list(shells[start : start + size])
        start += size
        size *= max(1, factor)


async def _all_finished(shells: Sequence[Shell], change: HostChange) -> bool:
    """Whether every host has completed this change, and still has its effect."""
    all_facts = await asyncio.gather(*(inspect(shell, change.revision, tree="content") for shell in shells))
    return all(_finished(shell, facts, change) for shell, facts in zip(shells, all_facts, strict=True))


def _finished(shell: Shell, facts: HostFacts, change: HostChange) -> bool:
    workers = shell.environment.services.workers
    last = "start-workers" if workers else "activate"
    return (
        facts.revision == change.revision
        and facts.clean
        and facts.state is not None
        and is_operation(facts.state.operation, change, last, shell.host.name)
        and facts.state.outcome == OperationOutcome.DONE
        and all(unit.active for unit in facts.units if unit.name in workers)
    )
