"""Getting a revision onto the hosts: first what changes nothing, then one host, then growing groups.

A rollback is the same with the former revision: it asks the origin for nothing, and a host that fails does
not keep the others from going back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from handlers.environment.model import Host
from handlers.errors import LockLost, RunbookError, Unreachable
from handlers.host.facts import HostFacts, inspect
from handlers.host.health import FleetHealth
from handlers.host.operations import OperationOutcome, OperationResult
from handlers.host.ssh import Shell
from handlers.host.step import HostChange, activate, operation_id, prepare, start_workers, stop_workers
from handlers.release.note import StepNote
from handlers.release.phase import Verdict, short

Healthy = Callable[[Sequence[Host]], Awaitable[FleetHealth]]
"""Asks whether these hosts, which just got the revision, answer with it."""
Verb = Callable[[Shell, HostChange], Awaitable[OperationResult]]


@dataclass(frozen=True, kw_only=True)
class RollOut:
    """What a roll-out came to, and what was done on each host."""

    verdict: Verdict
    sentence: str
    steps: dict[str, tuple[StepNote, ...]]
    touched_hosts: bool
    """Whether anything that runs may have changed."""


async def roll_out(shells: Sequence[Shell], change: HostChange, healthy: Healthy | None = None) -> RollOut:
    """Activate the revision: prepare everywhere, stop all workers, switch in groups, start all workers.

    Old and new workers never share the queue. Forward, the first failure ends it. Back, every host that can
    go back does, all at once.
    """
    journal = _Journal(change)
    has_workers = bool(shells and shells[0].environment.services.workers)
    able = await journal.everywhere("prepare", prepare, shells)
    if journal.over:
        return journal.conclude("nothing that runs has changed")
    if journal.resumed and len(able) == len(shells) and await _all_finished(shells, change):
        return journal.conclude(f"all {len(shells)} hosts were on {short(change.revision)} already")
    journal.touched_hosts = True
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
                return journal.conclude(seen.sentence, verdict=seen.verdict)
    if has_workers:
        await journal.everywhere("start workers", start_workers, active)
    return journal.conclude(f"{len(active)} of {len(shells)} hosts are on {short(change.revision)}")


class _Journal:
    """What was done on which host, so that the conclusion can tell."""

    def __init__(self, change: HostChange) -> None:
        self._change = change
        self._steps: dict[str, list[StepNote]] = {}
        self._failures: list[str] = []
        self.touched_hosts = False
        self.resumed = True
        """Nothing was begun by this call so far: an earlier one has done it all."""

    @property
    def over(self) -> bool:
        """Forward, one failure is enough."""
        return bool(self._failures) and not self._change.back

    def prepared(self, shell: Shell) -> bool:
        """Whether the host has what it needs for the switch."""
        return any(
            done.step == "prepare" and done.outcome == OperationOutcome.DONE
            for done in self._steps[shell.host.name]
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

    def conclude(self, summary: str, *, verdict: Verdict = Verdict.PASS) -> RollOut:
        """Pass only when nothing failed anywhere."""
        return RollOut(
            verdict=Verdict.FAIL if self._failures else verdict,
            sentence="; ".join([*self._failures, summary]),
            steps={host: tuple(steps) for host, steps in self._steps.items()},
            touched_hosts=self.touched_hosts,
        )

    def _note(
        self, shell: Shell, step: str, outcome: OperationOutcome, sentence: str, operation_id: str
    ) -> None:
        self._steps.setdefault(shell.host.name, []).append(
            StepNote(step=step, outcome=outcome.value, sentence=sentence, operation=operation_id)
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


async def _all_finished(shells: Sequence[Shell], change: HostChange) -> bool:
    """Whether this very change was carried through on every host and is still true there."""
    facts = await asyncio.gather(*(inspect(shell, change.revision) for shell in shells))
    return all(_finished(shell, seen, change) for shell, seen in zip(shells, facts, strict=True))


def _finished(shell: Shell, facts: HostFacts, change: HostChange) -> bool:
    workers = shell.environment.services.workers
    last = operation_id(change, "start-workers" if workers else "activate", shell.host.name)
    return (
        facts.revision == change.revision
        and facts.clean
        and facts.state is not None
        and facts.state.operation in (last, f"{last}r")
        and facts.state.outcome == OperationOutcome.DONE
        and all(unit.active for unit in facts.units if unit.name in workers)
    )
