"""All checks of an environment at one moment. Each source is read apart: one that is down hides no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Core
from handlers.database import clock
from handlers.database.privileges import Need, obstacles
from handlers.database.sqlstate import message_of
from handlers.database.transaction import transaction
from handlers.errors import LEDGER_AWAY, RunbookError
from handlers.gate.day_before import DayBefore
from handlers.host.log_state import LogState, NewSignature
from handlers.host.ssh import Shell, open_hosts
from handlers.measurements import alive, on_hosts, readings, tables, window
from handlers.measurements.measurement import Measurement, ordered, source_down
from handlers.measurements.tables import Freshness
from handlers.measurements.window import Window
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release

SOURCE_SECONDS = 4.0
"""How long one source of the database may take; each table is one. Real seconds."""
DATABASE_SECONDS = 20.0
"""How long all of them may take together."""
QUEUE_CHECKS = (*window.CHECKS, *alive.CHECKS)
_READ = Need(table="tds_sync_queue", privileges="SELECT")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Everything that was measured at one moment."""

    at: datetime | None
    """The database's time; None while it is away."""
    measurements: list[Measurement]
    freshness: list[Freshness] = field(default_factory=list)
    signatures: list[NewSignature] = field(default_factory=list)
    """The kinds of errors that are new in the logs."""


@dataclass(frozen=True, kw_only=True)
class _Beginning:
    """From when on things count, and what was before."""

    at: datetime
    since: datetime | None
    logs: LogState
    before: DayBefore | None


class _Down(Exception):
    """A source could not be read."""


async def measure(
    core: Core,
    *,
    release: Release | None = None,
    since: datetime | None = None,
    shells: Sequence[Shell] | None = None,
) -> list[Measurement]:
    """Measure everything now, in the order of the checks. Never raises: what cannot be read is a SOURCE_DOWN.

    The windows begin with the deploy of *release*, or at *since*: what was before is another revision's.
    """
    return (await survey(core, release=release, since=since, shells=shells)).measurements


async def survey(
    core: Core,
    *,
    release: Release | None = None,
    since: datetime | None = None,
    ago_seconds: float | None = None,
    shells: Sequence[Shell] | None = None,
) -> Survey:
    """The same, with the tables and the errors that the measurements were made of.

    *ago_seconds* is *since* by the database's clock.
    """
    try:
        begun = await _within(_begin(core, release, since, ago_seconds))
    except _Down as down:
        found, new = await _from_hosts(core, shells, None)
        lost = [source_down(name, down) for name in (*QUEUE_CHECKS, "freshness")]
        return Survey(at=None, measurements=ordered(core.environment, found + lost), signatures=new)
    (found, new), (counted, fresh) = await asyncio.gather(
        _from_hosts(core, shells, begun), _from_database(core, begun)
    )
    return Survey(
        at=begun.at,
        measurements=ordered(core.environment, found + counted),
        freshness=fresh,
        signatures=new,
    )


async def of_queue(core: Core, release: Release | None = None) -> list[Measurement]:
    """The checks of queue and workers alone, for a look that is taken often. Raises DatabaseDown.

    Without a *release* the windows are an hour and a day.
    """
    begun = await _begin(core, release)
    return ordered(core.environment, await _of_queue(core, begun, monotonic() + DATABASE_SECONDS))


async def _begin(
    core: Core, release: Release | None, since: datetime | None = None, ago_seconds: float | None = None
) -> _Beginning:
    async with transaction(core.database) as tx:
        at = await clock.now(tx)
        since = at - timedelta(seconds=ago_seconds) if ago_seconds is not None else since
        if release is None:
            logs = LogState(deployed_at=since or at - timedelta(days=1))
            return _Beginning(at=at, since=since, logs=logs, before=None)
        records = await releases.phase_records(tx, release)
        deploys = [record.started_at for record in records if record.phase is Phase.DEPLOYING]
        deployed_at = min(deploys, default=release.created_at)
        back = [record.started_at for record in records if record.phase is Phase.ROLLING_BACK]
        if since is None and release.phase is Phase.ROLLED_BACK and back:
            # What the revision did that was left says nothing about the one that runs now.
            since = max(back)
        kept = [record.note.around["state"] for record in records if record.note.around]
        logs = LogState(deployed_at=since or deployed_at)
        if kept and since is None:
            try:
                logs = LogState.from_json(kept[-1]["logs"])
            except (KeyError, TypeError, ValueError):
                # Another version's: the logs are read anew.
                logs = LogState(deployed_at=since or deployed_at)
        before = (await releases.plan(tx, release.id)).day_before or DayBefore()
        return _Beginning(at=at, since=since or deployed_at, logs=logs, before=before)


async def _from_database(core: Core, begun: _Beginning) -> tuple[list[Measurement], list[Freshness]]:
    """The checks of queue, workers and tables, one after the other: a look takes one connection."""
    deadline = monotonic() + DATABASE_SECONDS
    found = await _of_queue(core, begun, deadline)
    fresh = await _tables(core, begun.at, deadline)
    if isinstance(fresh, _Down):
        return [*found, source_down("freshness", fresh)], []
    return found + [tables.measured(core.environment.bars, each) for each in fresh], fresh


async def _of_queue(core: Core, begun: _Beginning, deadline: float) -> list[Measurement]:
    bars, span = core.environment.bars, Window.of(core.clock, begun.at, begun.since)
    found: list[Measurement] = []
    try:
        if denied := (await _read(core, lambda tx: obstacles(tx, [_READ]), deadline)).denied:
            # Row security does not refuse: the queue would only look empty, and so well.
            return [source_down(name, "; ".join(denied)) for name in QUEUE_CHECKS]
    except _Down as down:
        return [source_down(name, down) for name in QUEUE_CHECKS]
    for names, read in (
        (window.CHECKS, lambda tx: window.read(tx, bars, span, begun.before)),
        (alive.CHECKS, lambda tx: alive.read(tx, core.environment)),
    ):
        try:
            found += await _read(core, read, deadline)
        except _Down as down:
            found += [source_down(name, down) for name in names]
    return found


async def _tables(core: Core, at: datetime, deadline: float) -> list[Freshness] | _Down:
    try:
        columns = await _read(core, tables.columns, deadline)
    except _Down as down:
        return down
    fresh = []
    hour = at - timedelta(hours=1)
    for table, times in columns.items():
        try:
            fresh.append(await _read(core, lambda tx: tables.read(tx, table, times, at, hour), deadline))  # noqa: B023
        except _Down as down:
            fresh.append(Freshness(table=table, note=str(down)))
    return fresh


async def _from_hosts(
    core: Core, shells: Sequence[Shell] | None, begun: _Beginning | None
) -> tuple[list[Measurement], list[NewSignature]]:
    """The checks of the hosts and of the database server. Without the database nobody knows since when a log counts."""
    async with _shells(core, shells) as open_shells:
        logs, at = (None, None) if begun is None else (begun.logs, begun.at)
        read = await readings.read(core, open_shells, logs, at)
    new = None if read.logs is None else list(read.logs.seen)
    found = on_hosts.of_readings(core.environment, read.hosts, read.connections, new, read.problems)
    return found, new or []


@asynccontextmanager
async def _shells(core: Core, shells: Sequence[Shell] | None) -> AsyncIterator[list[Shell]]:
    if shells is not None:
        yield list(shells)
        return
    async with open_hosts(core.environment, connected=False) as own:
        yield own


async def _read(core: Core, read: Callable[[AsyncConnection], Awaitable[T]], deadline: float) -> T:
    """What *read* finds in a transaction of its own. Raises _Down with the reason."""
    seconds = min(SOURCE_SECONDS, deadline - monotonic())
    if seconds <= 0:
        raise _Down(f"nothing was left of the {DATABASE_SECONDS:g} s for the database")

    async def bounded() -> T:
        async with transaction(core.database) as tx:
            await window.limit_time(tx, seconds)
            return await read(tx)

    began = monotonic()
    try:
        # A little more, so that the server ends the query itself.
        return await _within(bounded(), seconds + 1)
    except _Down:
        if monotonic() - began >= seconds:
            raise _Down(f"not within {seconds:.2g} s") from None
        raise


async def _within(work: Awaitable[T], seconds: float = SOURCE_SECONDS) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise _Down(f"not within {seconds:g} s") from None
    except DBAPIError as error:
        raise _Down(message_of(error)) from error
    except (*LEDGER_AWAY, RunbookError) as error:
        raise _Down(str(error)) from error
