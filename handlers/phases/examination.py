"""What `runbook doctor` looks at: everything that can spoil the next release or the pipeline, asked at one moment.

It changes nothing. Each finding is a sentence that says what is wrong and what to do; what was looked at is listed, so
that "no problem" says of what.
"""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Core
from handlers.database import migrate
from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.erp import doctor
from handlers.erp.doctor import Problem
from handlers.phases import approve, from_hosts, plan
from handlers.phases.from_hosts import HostReport
from handlers.queue.limits import limits
from handlers.release import due, lock
from handlers.release.ledger import releases
from handlers.release.lock import Holder
from handlers.release.phase import FINISHED, LIVE, Phase, Release, short
from handlers.status.past import current, past
from handlers.status.wrapping import age
from handlers.worker import roster

SQL = queries(__name__)

BLOCKED_SECONDS = 30.0
"""Our own statements wait for a lock for seconds at most."""
IDLE_SECONDS = 300.0
"""A transaction in which nothing happened for so long was forgotten."""
_WORKS_ON = {"lock"}
"""Checks of a plan that are no fault here: that a release is live is what a doctor may be called for."""
_PACKAGES = ("tds-runbook", "prefect", "sqlalchemy", "asyncpg", "httpx", "paramiko", "pydantic", "fastapi")
_BEFORE_A_CHANGE = (Phase.PLANNED, Phase.APPROVED)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found, what was looked at, and which versions were met."""

    findings: tuple[Problem, ...]
    checked: tuple[str, ...]
    versions: dict[str, str]
    hosts: tuple[HostReport, ...]


async def examine(core: Core) -> Examination:
    """Look at schema, privileges, indexes, queue, workers, locks, releases, hosts, clocks and versions.

    Raises DatabaseDown or LoginRefused when the ledger cannot be read. A host that cannot be asked is a finding.
    """
    name = core.environment.name
    async with transaction(core.database) as tx:
        findings = [each async for each in _sessions(tx)]
    findings += await doctor.examine(core.database, name)
    checks = await plan.run_checks(core)
    hosts = await from_hosts.survey(core)
    has_ledger = not await migrate.pending(core.database)
    async with transaction(core.database) as tx:
        if has_ledger:
            findings += [each async for each in _locks(tx, name)]
            found = current(await past(tx, name))
            findings += _hosts_against(found.release if found else None, hosts)
        versions = await _versions(tx, has_ledger=has_ledger)
    seen = {each.sentence for each in findings}
    findings += [
        Problem(name=check.name, sentence=check.sentence)
        for check in checks
        if (check.warns or not check.good) and check.name not in _WORKS_ON and check.sentence not in seen
    ]
    return Examination(
        findings=tuple(findings), checked=_checked(has_ledger=has_ledger), versions=versions, hosts=hosts
    )


async def _sessions(tx: AsyncConnection) -> AsyncIterator[Problem]:
    for row in await tx.execute(SQL["blocking"], {"seconds": BLOCKED_SECONDS}):
        yield Problem(
            name="locks",
            sentence=f"{row.sessions} sessions have waited for {_session(row)} for up to {age(row.seconds)}, "
            f"which is {row.state}: end it with pg_terminate_backend({row.pid}) if nobody needs it",
        )
    for row in await tx.execute(SQL["idle"], {"seconds": IDLE_SECONDS}):
        yield Problem(
            name="locks",
            sentence=f"{_session(row)} has left a transaction open for {age(row.seconds)}: its locks stay, and "
            f"VACUUM removes nothing younger. End it with pg_terminate_backend({row.pid})",
        )
    for row in await tx.execute(SQL["prepared"], {"seconds": IDLE_SECONDS}):
        yield Problem(
            name="locks",
            sentence=f"the prepared transaction {row.gid!r} of {row.role} is {age(row.seconds)} old and keeps its "
            "locks: commit it or roll it back",
        )


def _session(row: Any) -> str:
    program = f", {row.program}" if row.program else ""
    return f"session {row.pid} ({row.role}{program})"


async def _locks(tx: AsyncConnection, environment: str) -> AsyncIterator[Problem]:
    holder = await lock.holder(tx, environment)
    if holder is not None:
        run = await releases.get(tx, holder.release_id)
        if sentence := _lock_fault(holder, run):
            yield Problem(name="lock", sentence=sentence)
    live = await releases.live(tx, environment)
    # Held for a reason of ours, it is due again: that was found with the releases that nobody carries.
    waits = live is not None and live.phase is Phase.HELD and (await due.care(tx, live)).carried is not False
    if live is not None and waits:
        yield Problem(
            name="release",
            sentence=f"release {live.id} is held: {live.reason}. A person decides: `runbook resume`, "
            "`runbook rollback` or `runbook abort`",
        )
    waiting = [each.release for each in await past(tx, environment) if each.release.phase in _BEFORE_A_CHANGE]
    for run in waiting:
        why = await approve.why_waiting(tx, run)
        starts = "it has not started: `runbook resume` starts it, `runbook abort` ends it"
        yield Problem(name="release", sentence=why or f"release {run.id} is {run.phase}: {starts}")
    for limit in await limits(tx):
        if live is None:
            yield Problem(
                name="limit",
                sentence=f"the queue is limited to {limit.sentence}: `runbook queue unthrottle` removes it",
            )


def _lock_fault(holder: Holder, run: Release) -> str:
    """What is wrong with the lock of an environment; empty when it is held as it should be."""
    if run.phase in FINISHED:
        return (
            f"{holder.name} holds the lock for release {run.id}, which is {run.phase}: it expires by itself, and "
            "the next release takes it"
        )
    if not holder.alive:
        gone = "its process has ended" if holder.has_ended else "it has expired"
        return (
            f"the lock of {holder.name} for release {run.id} is dead ({gone}, last renewed "
            f"{age(holder.silent_seconds)} ago): `runbook resume --due` goes on with the release"
        )
    return ""


def _hosts_against(release: Release | None, hosts: Iterable[HostReport]) -> Iterator[Problem]:
    """What hosts run beside what the ledger says. While a release changes them nothing can be said."""
    if release is None or release.phase in LIVE or release.phase in _BEFORE_A_CHANGE:
        return
    is_back = release.phase in (Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED)
    wanted = release.from_revision if is_back else release.to_revision
    if release.phase in (Phase.REFUSED, Phase.ABORTED):
        return
    for host in hosts:
        if host.problem:
            continue
        runs = {"tree": host.tree, "process": host.answers}
        other = [f"its {what} is on {short(have)}" for what, have in runs.items() if have and have != wanted]
        if other:
            yield Problem(
                name=host.host,
                sentence=f"{host.host} should be on {short(wanted)} since release {release.id}, but "
                f"{' and '.join(other)}: somebody changed it by hand. `runbook check` says more; release the "
                "revision that you want",
            )


async def _versions(tx: AsyncConnection, *, has_ledger: bool) -> dict[str, str]:
    server = (await tx.execute(SQL["server"])).one()
    found = {name: _package(name) for name in _PACKAGES}
    found |= {"python": platform.python_version(), "system": platform.platform(terse=True)}
    found |= {
        "postgresql": server.version + (", a standby" if server.standby else ""),
        "postgresql time zone": server.time_zone,
        "statement_timeout": server.statement_timeout,
        "idle_in_transaction_session_timeout": server.idle_timeout,
        "max_connections": server.max_connections,
        "ledger": migrate.newest() if has_ledger else "none, or outdated",
    }
    if has_ledger and await roster.is_there(tx):
        workers = await roster.workers(tx)
        live = {short(each.revision) for each in workers if each.sign is roster.Sign.LIVE}
        found["workers"] = ", ".join(sorted(live)) or "none is alive"
    return found


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _checked(*, has_ledger: bool) -> tuple[str, ...]:
    ledger = (
        ("the ledger's lock and unfinished releases", "each host against the ledger") if has_ledger else ()
    )
    return (
        "privileges, row security and read-only mode",
        "the pooler, if there is one",
        "the ledger's schema, the ERP's columns and indexes",
        "stuck events, silent and old workers, limits of the queue",
        "database sessions that block others",
        *ledger,
        "each host's tree, units, health answer, disk and clock",
        "the receiver, the source and the addresses for messages",
    )
