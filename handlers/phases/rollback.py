"""The rollback: every host goes back by itself until it is back, then the revision that was left is judged.

It goes on without the ledger while the database is away; the records are written at the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from handlers.core import Core
from handlers.environment.model import Host
from handlers.errors import LEDGER_AWAY, RunbookError
from handlers.host import way_back
from handlers.host.facts import inspect
from handlers.host.health import HostHealth, look_once, until_healthy
from handlers.host.ssh import Shell
from handlers.host.step import HostChange, Recorder
from handlers.host.way_back import HostReturn
from handlers.phases.drain import restore_unsettled
from handlers.phases.probe import host_notes
from handlers.release import left_behind
from handlers.release.ledger import deferred, intents, records, releases
from handlers.release.ledger.deferred import DeferringRecorder, Unrecorded
from handlers.release.note import HostNote, PhaseNote, ReturnNote
from handlers.release.phase import Conclusion, Phase, Release, Verdict, short

log = logging.getLogger(__name__)

LEDGER_SECONDS = 3.0
"""How long the way back waits for anything that only informs people, or that the end repeats."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The hosts of a rollback, and for how many seconds each is tried."""

    hosts: tuple[HostReturn, ...]
    keep_trying_seconds: float


@dataclass(frozen=True, kw_only=True)
class Try:
    """The result of one try with one host, with what the ledger does not know yet."""

    host: HostReturn
    unrecorded: tuple[Unrecorded, ...] = ()


async def fleet(core: Core, release: Release) -> Fleet:
    """The hosts that must go back.

    Their operations are numbered by the rollbacks of this release, so that a restarted controller attaches to them.
    While the database is away it does not know that number, and begins operations of its own.
    """
    try:
        async with asyncio.timeout(LEDGER_SECONDS):
            phases = await releases.phase_records(core.database, release)
        attempt = str(max(1, sum(record.phase is Phase.ROLLING_BACK for record in phases)))
    except (*LEDGER_AWAY, TimeoutError):
        attempt = f"t{release.token}"
    return Fleet(
        hosts=tuple(HostReturn(host=host.name, attempt=attempt) for host in core.environment.hosts),
        keep_trying_seconds=core.environment.deploy.keep_trying_seconds,
    )


async def restore_first(core: Core, release: Release) -> None:
    """Restore the redriven dead letters that no worker has leased, before the hosts go back.

    The end of the rollback repeats it, so an absent database only delays it.
    """
    try:
        async with asyncio.timeout(LEDGER_SECONDS):
            await restore_unsettled(core, release)
    except (*LEDGER_AWAY, TimeoutError) as error:
        log.warning("dead letters are restored at the end of the rollback: %s", error or "no answer")


async def try_host(core: Core, release: Release, before: HostReturn) -> Try:
    """One try to bring a host back. Raises LockLost when another controller has taken the lock."""
    host, recorder = _host(core, before), DeferringRecorder(engine=core.database, release=release)
    change = _change(release, recorder, before)
    now = await bring_back(core, host, change, before, leaving=release.to_revision)
    await _note(core, release, now)
    return Try(host=now, unrecorded=tuple(recorder.unrecorded))


async def leave(core: Core, release: Release, host: HostReturn) -> HostReturn:
    """Start the workers of a host that is not tried again and was not switched."""
    recorder = DeferringRecorder(engine=core.database, release=release)
    shell = Shell(core.environment, _host(core, host))
    try:
        return await way_back.leave(shell, _change(release, recorder, host), host)
    finally:
        shell.close()


async def bring_back(
    core: Core, host: Host, change: HostChange, before: HostReturn, *, leaving: str
) -> HostReturn:
    """One try to bring a host back from the revision *leaving*, proven by its own answers."""
    shell = Shell(core.environment, host)

    async def prove(shell: Shell, replaced: Mapping[str, str]) -> HostHealth:
        health = await until_healthy(
            core,
            change.revision,
            hosts=[host],
            shells=[shell],
            replaced={host.name: replaced},
            fleet_workers=False,
        )
        return health.hosts[0]

    try:
        return await way_back.go_back(shell, change, before, leaving=leaving, prove=prove)
    finally:
        shell.close()


async def look(core: Core, release: Release, hosts: Sequence[HostReturn]) -> tuple[HostReturn, ...]:
    """Look at all hosts together, with the workers that their answers list. One that is not healthy is not back.

    A worker of the previous revision must be listed. Those of the revision that was left may still be: their units have
    been replaced on every host, and the list forgets them only after a while, which would double the time to be back.
    """
    deadline = asyncio.get_running_loop().time() + core.environment.probe.limit_seconds
    while True:
        health = await look_once(core, release.from_revision, leaving=release.to_revision)
        seen = {one.host: one for one in health}
        is_late = asyncio.get_running_loop().time() >= deadline
        if is_late or all(one.good for one in health):
            break
        await asyncio.sleep(core.environment.probe.interval_seconds)
    looked = tuple(_looked(host, seen[host.host]) for host in hosts)
    note = PhaseNote(hosts=host_notes(health), returns={h.host: return_note(h) for h in looked})
    await _noted(core, release, note)
    return looked


async def answering(core: Core, names: Sequence[str]) -> tuple[str, ...]:
    """Which of these hosts can be reached by SSH now. One quick look, which changes nothing."""

    async def answers(host: Host) -> bool:
        shell = Shell(core.environment, host)
        try:
            await inspect(shell, tree="")
        except RunbookError:
            return False
        finally:
            shell.close()
        return True

    hosts = [host for host in core.environment.hosts if host.name in names]
    found = await asyncio.gather(*map(answers, hosts))
    return tuple(host.name for host, answered in zip(hosts, found, strict=True) if answered)


async def conclude(
    core: Core,
    release: Release,
    hosts: Sequence[HostReturn],
    *,
    why: str,
    evidence: str,
    unrecorded: Sequence[Unrecorded] = (),
) -> Conclusion:
    """Tell the ledger everything, restore the unfinished dead letters, and quarantine a revision that is to blame.

    Passes only when every host is back. The sentence names the dead letters that the rolled-back revision has left
    behind.
    """
    await deferred.write(core.database, release, unrecorded)
    all_back = all(host.back for host in hosts)
    gone = await _workers_gone_at(core, release) if all_back else None
    restored = await restore_unsettled(core, release, leased_before=gone)
    if release.from_revision != release.to_revision and await _blames_revision(core, release):
        await records.quarantine(core.database, release, why)
    left = await left_behind.kinds(core.database, release)
    sentence = _sentence(release, hosts, why)
    if restored:
        sentence += f"; {restored} unfinished dead letters restored"
    if left:
        sentence += f"; {left_behind.summary(left)}; `{left_behind.command(release)}` redrives them"
    return Conclusion(
        verdict=Verdict.PASS if all_back else Verdict.FAIL,
        sentence=sentence,
        note=PhaseNote(why=why, evidence=evidence, returns={host.host: return_note(host) for host in hosts}),
    )


def _host(core: Core, host: HostReturn) -> Host:
    return next(known for known in core.environment.hosts if known.name == host.host)


def _change(release: Release, recorder: Recorder, host: HostReturn) -> HostChange:
    """The change of one try: its operations have ids of their own, so that a failed one is repeated."""
    assert release.token is not None
    return HostChange(
        release=release.id,
        token=release.token,
        revision=release.from_revision,
        recorder=recorder,
        back=True,
        attempt=f"{host.attempt}.{host.tries + 1}",
    )


def return_note(host: HostReturn) -> ReturnNote:
    """A host's way back as the ledger stores it."""
    return ReturnNote(
        back=host.back,
        sentence=host.sentence,
        revision=host.revision,
        units=host.units,
        operation=host.operation,
        tries=host.tries,
        away=host.away and not host.back,
    )


def _looked(host: HostReturn, health: HostHealth) -> HostReturn:
    if health.good or not host.back:
        return host
    return replace(host, back=False, revision=health.revision or host.revision, sentence=health.summary)


def _sentence(release: Release, hosts: Sequence[HostReturn], why: str) -> str:
    target = short(release.from_revision)
    missing = [host for host in hosts if not host.back]
    if not missing:
        return f"back on {target}: {len(hosts)} of {len(hosts)} hosts are healthy; because {why}"
    each = "; ".join(
        f"{host.host} (on {short(host.revision)}, tried {host.tries} times): {host.sentence}"
        for host in missing
    )
    return (
        f"{len(hosts) - len(missing)} of {len(hosts)} hosts are back on {target}. Not back: {each}. "
        f"When they can be reached, run `runbook rollback`; it was started because {why}"
    )


async def _blames_revision(core: Core, release: Release) -> bool:
    """Whether the newest failure before the rollback is evidence against the revision."""
    phases = await releases.phase_records(core.database, release)
    blames = [
        record.note.blames_revision
        for record in phases
        if record.phase not in (Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED)
        and record.note.blames_revision is not None
    ]
    return blames[-1] if blames else True


async def _workers_gone_at(core: Core, release: Release) -> datetime | None:
    """When the first host started its workers again. An older lease was taken by a worker of the revision that was
    left: once every host is back, all of these are gone. None in an environment without workers.
    """
    started = [
        operation.started_at
        for operation in await intents.operations(core.database, release)
        if operation.kind == "back-start-workers"
    ]
    return min(started, default=None)


async def _note(core: Core, release: Release, host: HostReturn) -> None:
    health = HostNote(
        have=host.revision,
        ok=host.back,
        note="" if host.back else host.sentence,
    )
    note = PhaseNote(hosts={host.host: health}, returns={host.host: return_note(host)})
    await _noted(core, release, note)


async def _noted(core: Core, release: Release, note: PhaseNote) -> None:
    """Write progress for people; the way back does not wait for it."""
    try:
        async with asyncio.timeout(LEDGER_SECONDS):
            await releases.note(core.database, release, note)
    except (*LEDGER_AWAY, TimeoutError):
        log.warning("the progress of the rollback could not be recorded")
