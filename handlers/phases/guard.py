"""The guard: after a release has succeeded, who comes each minute takes the checks that are due.

A check looks at live traffic with the gate of the release, with all its evidence since the switch. A breach begins the
way back. After an outage of the scheduler one look stands for all that are overdue. Nothing waits here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Core
from handlers.database import clock
from handlers.database.transaction import transaction
from handlers.errors import LEDGER_AWAY, Locked, Refused, TryAgain
from handlers.gate.values import Finding, Judgement
from handlers.measurements.everything import measure
from handlers.measurements.measurement import Measurement
from handlers.notify.tell import tell, write
from handlers.phases import begin, guard_bars, looking, one_way, surroundings
from handlers.phases.around_pages import Page
from handlers.phases.guard_bars import Measured
from handlers.release import lock
from handlers.release.controller import controller_name, this_controller
from handlers.release.ledger import guards, releases
from handlers.release.ledger.guards import Check, Claim, Kind
from handlers.release.note import PhaseNote
from handlers.release.phase import Phase, Release, Verdict
from handlers.release.topic import Topic

log = logging.getLogger(__name__)

LIMIT_SECONDS = 120.0
"""How long one check may take; its claim lasts longer. Real seconds."""
REPORT_SECONDS = 50.0
"""How long the report of the whole guard may take, besides."""


@dataclass(frozen=True, kw_only=True)
class _Due:
    """The checks of one kind that are due, oldest first, and the claim under which they are taken."""

    claim: Claim
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a check has found, as the ledger keeps it."""

    finding: Finding | None
    sentence: str
    measurements: tuple[Measurement, ...] = ()


WriteReport = Callable[[Core, Release], Awaitable[str]]


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What came of the checks of one release."""

    release: Release
    """As it is now: on its way back after a breach."""
    finding: Finding | None
    """None where only the report was due."""
    sentence: str
    skipped: int = 0
    """How many overdue checks this one stands for."""
    reported: str = ""
    """Where the report is, or why there is none; empty where it was not due."""


async def take(core: Core, run: Release, write_report: WriteReport) -> Taken | None:
    """Take the checks of this release that are due. None where none is, or where another taker has them.

    Raises TryAgain where a check could not be taken now: it stays due.
    """
    claim = await guards.claim(core.database, run.id, by=controller_name())
    if claim is None:
        return None
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            taken = await _look(core, run, claim)
        return await _report(core, run, claim, taken, write_report)
    except TimeoutError:
        raise TryAgain(
            f"the check of release {run.id} took longer than {LIMIT_SECONDS:.0f} s; it stays due"
        ) from None
    finally:
        # Where the database is away, the claim ends by itself.
        with contextlib.suppress(*LEDGER_AWAY):
            await guards.free(core.database, claim)


async def ask_upstream(core: Core, run: Release) -> None:
    """Ask whether the upstream answers, between two checks: the next one must know of an outage that is over."""
    if core.environment.upstream is None:
        return
    state = await surroundings.begin(core, run)
    # Only the upstream: the hosts are looked at by the checks.
    seen = await surroundings.look(core, run, replace(state, measured_at=await clock.now(core.database)))
    await _page(core, run, seen.pages)
    await surroundings.keep(core, run, seen)


async def _look(core: Core, run: Release, claim: Claim) -> Taken | None:
    """The newest look that is due, for all of them."""
    run = await releases.get(core.database, run.id)
    due = await _due(core, run, claim, Kind.LOOK)
    if not due.checks:
        return None
    # First, so that an outage of the upstream is told to the gate.
    await _page(core, run, (await surroundings.once(core, run)).pages)
    judgement = await _judged(core, run, claim)
    checks = await _measured(core, run)
    told = guard_bars.pages(
        checks, source_down_seconds=core.environment.watch.source_down_seconds, speed=run.speed
    )
    await _page(core, run, told)
    words = guard_bars.in_words(checks[-1].measurements)
    seen = _Seen(
        finding=judgement.finding,
        sentence=f"{judgement.sentence}. {words}" if words else judgement.sentence,
        measurements=checks[-1].measurements,
    )
    bars = guard_bars.taking_back(checks)
    if judgement.finding is Finding.UNHEALTHY:
        return await _breach(core, run, due, seen, judgement.sentence)
    if bars:
        broken = f"broken at {guard_bars.LOOKS_MIN} checks in a row: {bars[0].key}: {bars[0].sentence}"
        return await _breach(core, run, due, replace(seen, finding=Finding.UNHEALTHY), broken)
    async with transaction(core.database) as tx:
        await _write(tx, due, seen)
    await write(core, run, Topic.GUARD_TAKEN, f"its checks are taken again; the newest found {seen.finding}")
    return Taken(release=run, finding=seen.finding, sentence=seen.sentence, skipped=len(due.checks) - 1)


async def _judged(core: Core, run: Release, claim: Claim) -> Judgement:
    """The gate's judgement. A breach after the time without a look has to show twice, a little later."""
    taken = 0
    while True:
        looker = await looking.begin(core, run, claim=claim)
        judgement = await looker.look(core, run, left=0, steers=False)
        taken += looker.taken
        if looker.gate.unconfirmed_s <= 0:
            return _of_this_check(judgement, taken)
        await core.clock.sleep(looker.gate.unconfirmed_s)


async def _measured(core: Core, run: Release) -> list[Measured]:
    """What was measured at the checks before, and now."""
    before = [
        Measured(at=check.taken_at, measurements=tuple(map(Measurement.from_json, check.measurements)))
        for check in await guards.checks(core.database, run.id)
        if check.kind is Kind.LOOK and check.taken_at is not None and not check.skipped
    ]
    found = await measure(core, release=run)
    return [*before, Measured(at=await clock.now(core.database), measurements=tuple(found))]


async def _breach(core: Core, run: Release, due: _Due, seen: _Seen, sentence: str) -> Taken:
    """Begin the way back, unless a person decides alone, or another release lies on top."""
    taken = Taken(release=run, finding=seen.finding, sentence=sentence, skipped=len(due.checks) - 1)
    why_not = await _why_no_rollback(core, run)
    if why_not:
        await tell(core, run, Topic.BREACH, f"{sentence}; it is not taken back: {why_not}")
        async with transaction(core.database) as tx:
            await _write(tx, due, replace(seen, sentence=f"not taken back: {why_not}. {seen.sentence}"))
        return taken
    try:
        await begin.clear_the_way(core, run, by="the guard")
        token = await lock.take(
            core.database, run.environment, run.id, controller_name(), controller=this_controller()
        )
    except Locked as error:
        await tell(core, run, Topic.BREACH, f"{sentence}; the way back waits for the lock: {error}")
        raise
    try:
        locked = await releases.get(core.database, run.id)
        async with transaction(core.database) as tx:
            await _write(tx, due, seen)
            back = await releases.enter(
                tx,
                locked,
                Phase.ROLLING_BACK,
                verdict=Verdict.FAIL,
                sentence=f"in the hours after it: {sentence}",
                note=PhaseNote(finding=seen.finding, blames_revision=True),
            )
    finally:
        await lock.free(core.database, run.environment, token)
    # People are told by the outbox: the message was written with the phase.
    log.error("release %s: it goes back: %s", run.id, sentence)
    return replace(taken, release=back)


async def _why_no_rollback(core: Core, run: Release) -> str:
    """Why a breach does not take the release back by itself; empty when it does."""
    run, guard = await releases.get(core.database, run.id), await guards.get(core.database, run.id)
    if guard is None or run.phase is not Phase.SUCCEEDED:
        return f"it is {run.phase}"
    if guard.pages_only_by:
        return f"{guard.pages_only_by} has taken that over: {guard.pages_only}"
    if not core.environment.guard.roll_back:
        return "guard.roll_back is false"
    if why := await one_way.why_not_back(core.database, run):
        return why
    try:
        candidate = await begin.rollback_candidate(core)
    except Refused as error:
        return str(error)
    return "" if candidate.id == run.id else f"release {candidate.id} is newer"


async def _report(
    core: Core, run: Release, claim: Claim, taken: Taken | None, write_report: WriteReport
) -> Taken | None:
    """The report of the whole guard, once it is due, and the end of the guard with its last check."""
    if taken is not None and taken.release.phase is not Phase.SUCCEEDED:
        return taken
    reports = await _due(core, run, claim, Kind.REPORT)
    if reports.checks:
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                sentence = await write_report(core, run)
        except LEDGER_AWAY:
            raise
        except Exception as error:
            # A report that cannot be written keeps nobody from the end: `runbook report` writes it again.
            log.warning("the report of release %s could not be written: %r", run.id, error)
            sentence = f"the report could not be written ({error}): `runbook report` writes it"
        async with transaction(core.database) as tx:
            await _write(tx, reports, _Seen(finding=None, sentence=sentence))
        seen = taken or Taken(release=run, finding=None, sentence=sentence)
        taken = replace(seen, reported=sentence)
    checks = await guards.checks(core.database, run.id)
    if all(check.taken_at for check in checks):
        await guards.end(core.database, run.id, sentence=_summary(checks))
    return taken


async def _due(core: Core, run: Release, claim: Claim, kind: Kind) -> _Due:
    """The checks that are due, by the database's clock."""
    now = await clock.now(core.database)
    checks = await guards.checks(core.database, run.id)
    open_ = (check for check in checks if check.kind is kind and check.taken_at is None)
    return _Due(claim=claim, checks=tuple(check for check in open_ if check.due_at <= now))


async def _write(tx: AsyncConnection, due: _Due, seen: _Seen) -> None:
    """Write the newest of the checks that are due; it stands for the others. Raises LockLost after a lost claim."""
    await guards.fence(tx, due.claim)
    newest = due.checks[-1]
    measurements = [each.as_json() for each in seen.measurements]
    await guards.take(tx, newest, finding=seen.finding, sentence=seen.sentence, measurements=measurements)
    if len(due.checks) > 1:
        stands = f"not taken in time: the look that was due at {newest.due_at.astimezone(UTC):%H:%M} UTC stands for it"
        await guards.skip(tx, due.checks[:-1], stands)


def _of_this_check(judgement: Judgement, taken: int) -> Judgement:
    """The finding of one check. What was seen before it is no data about the time since: then it says so."""
    if taken or judgement.finding in (Finding.UNHEALTHY, Finding.NO_DATA):
        return judgement
    sentence = f"no live event since the look before. Until then: {judgement.sentence}"
    return replace(judgement, finding=Finding.NO_DATA, sentence=sentence)


def _summary(checks: Sequence[Check]) -> str:
    """What the whole guard has found, in one sentence."""
    looks = [check for check in checks if check.kind is Kind.LOOK]
    taken = [check for check in looks if not check.skipped]
    counts = Counter(str(check.finding) for check in taken)
    found = ", ".join(f"{count} {finding}" for finding, count in sorted(counts.items()))
    skipped = f"; {len(looks) - len(taken)} skipped" if len(taken) < len(looks) else ""
    return f"it is over: {len(taken)} looks, {found}{skipped}"


async def _page(core: Core, run: Release, pages: Iterable[Page]) -> None:
    for each in pages:
        await tell(core, run, each.event, each.sentence, subject=each.source, severity=each.severity)
