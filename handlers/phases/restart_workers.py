"""Restarting the workers by hand: one operation on each host, recorded like every change, and proven by heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

from handlers.core import Core
from handlers.database import clock
from handlers.database.transaction import transaction
from handlers.environment.model import Environment
from handlers.errors import DatabaseDown, LockLost, LoginRefused, Refused, RunbookError
from handlers.host.operations import OperationOutcome
from handlers.host.ssh import open_hosts
from handlers.host.state import read_state
from handlers.host.step import HostChange, start_workers
from handlers.release.ledger import releases
from handlers.release.ledger.intents import LedgerRecorder
from handlers.release.phase import FINISHED, Release
from handlers.worker import roster

BEAT_SECONDS = 45.0
"""How long the new workers may take to beat: an ERP is imported before its first beat."""
_POLL_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class HostRestart:
    """What came of the restart on one host."""

    host: str
    outcome: str
    """done, failed, unreachable or unknown; `not tried` after another host failed."""
    seconds: float
    sentence: str
    workers: tuple[str, ...] = ()
    """The workers that have beaten since, with their revisions. Their host is the name that the machine has."""

    @property
    def good(self) -> bool:
        """Whether its workers run again, as far as it can be proven."""
        return self.outcome == OperationOutcome.DONE


@dataclass(frozen=True, kw_only=True)
class _Recorder(LedgerRecorder):
    """Records who restarted the workers, and why, with the command of each host."""

    by: str
    reason: str

    async def intend(self, operation_id: str, host: str, kind: str, command: str) -> None:
        """Record the intention under its own kind: it is no part of the release's roll-out."""
        told = f"# by hand, {self.by}: {self.reason}\n{command}"
        await super().intend(operation_id, host, f"restart-{kind}", told)


async def newest_release(core: Core) -> Release:
    """The release under which a restart is recorded: the newest one, which must have ended. Raises Refused."""
    environment = core.environment
    if not environment.services.workers:
        raise Refused(
            f"{environment.name} has no worker units (services.workers): its workers live in the web unit, "
            "and a restart of that is a release"
        )
    run = await releases.latest(core.database, environment.name)
    if run is None:
        raise Refused(
            f"{environment.name} has had no release yet, and the ledger records a restart under the newest one: "
            "restart the units with systemctl"
        )
    raise_if_running(run)
    return run


def raise_if_running(run: Release) -> None:
    """Raise Refused while a release has not ended: its own phases start and stop the workers."""
    if run.phase not in FINISHED:
        raise Refused(
            f"release {run.id} of {run.environment} is {run.phase}: it starts and stops the workers itself. "
            "Wait until it has ended, or end it with `runbook abort`"
        )


def hosts_named(environment: Environment, names: Sequence[str]) -> Environment:
    """The environment with only these hosts; all without a name. Raises Refused for an unknown one."""
    known = {host.name: host for host in environment.hosts}
    for name in names:
        if name not in known:
            raise Refused(
                f"there is no host {name!r} in {environment.name}: choose one of {', '.join(known)}"
            )
    wanted = tuple(known[name] for name in known if name in names or not names)
    return environment.model_copy(update={"hosts": wanted})


async def restart(
    core: Core, run: Release, hosts: Sequence[str], *, by: str, reason: str
) -> list[HostRestart]:
    """Restart the workers of these hosts, one host after the other, while the lock is ours. Ends at a failure.

    Raises LockLost when somebody takes the lock over, and DatabaseDown when an intention could not be recorded.
    """
    assert run.token is not None
    environment = hosts_named(core.environment, hosts)
    raise_if_running(await releases.get(core.database, run.id))
    change = HostChange(
        release=run.id,
        token=run.token,
        revision=run.to_revision,
        recorder=_Recorder(engine=core.database, release=run, by=by, reason=reason),
        # The token is a new one each time, so a second restart is another operation.
        attempt=f"hand{run.token}",
    )
    results: list[HostRestart] = []
    async with open_hosts(environment, connected=False) as shells:
        for shell in shells:
            if results and not results[-1].good:
                sentence = f"not tried, because {results[-1].host} failed"
                results.append(
                    HostRestart(host=shell.host.name, outcome="not tried", seconds=0.0, sentence=sentence)
                )
                continue
            since = await clock.now(core.database)
            began = monotonic()
            try:
                state = await read_state(shell)
                # A host that went back without the ledger must still say so in its state file.
                is_back = state is not None and state.operation.startswith(f"{run.id}-back-")
                operation = await start_workers(shell, replace(change, back=is_back))
                outcome, sentence = operation.outcome.value, operation.sentence
            except (LockLost, DatabaseDown, LoginRefused):
                raise
            except RunbookError as error:
                outcome, sentence = OperationOutcome.UNREACHABLE.value, str(error)
            result = HostRestart(
                host=shell.host.name, outcome=outcome, seconds=monotonic() - began, sentence=sentence
            )
            if result.good:
                result = await _proven(core, result, units=len(environment.services.workers), since=since)
            results.append(replace(result, seconds=monotonic() - began))
    return results


async def _proven(core: Core, result: HostRestart, *, units: int, since: datetime) -> HostRestart:
    """The result with the heartbeats of the new workers; failed when they do not beat, though workers here do."""
    async with transaction(core.database) as tx:
        beats = bool(await roster.workers(tx))
    if not beats:
        sentence = "its units run; these workers send no heartbeat, which would prove more"
        return replace(result, sentence=sentence)
    deadline = monotonic() + BEAT_SECONDS
    while True:
        async with transaction(core.database) as tx:
            begun = await roster.begun_since(tx, since)
        if len(begun) >= units:
            told = tuple(f"{each.owner} on {each.revision[:7]}" for each in begun)
            sentence = f"{len(begun)} new workers beat"
            return replace(result, sentence=sentence, workers=told)
        if monotonic() >= deadline:
            sentence = (
                f"its units were restarted, but only {len(begun)} of at least {units} new workers beat "
                f"within {BEAT_SECONDS:g} s: see `runbook logs --host {result.host}`"
            )
            return replace(result, outcome=OperationOutcome.FAILED.value, sentence=sentence)
        await asyncio.sleep(_POLL_SECONDS)
