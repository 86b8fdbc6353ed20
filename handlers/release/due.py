"""Whether anybody carries a release on, and whether it is due: whether `runbook resume --due` takes it up.

Only the ledger is read. A release is due when something is left to do that needs no person, and no living controller
does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import Refused
from handlers.release import lock
from handlers.release.ledger import releases
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.lock import Holder
from handlers.release.note import HeldBy
from handlers.release.phase import FINISHED, LIVE, Phase, Release

SQL = queries(__name__)
RETRY_PAUSES = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15))
"""The pauses before a phase that our own error, a host or an upstream held is tried again. Then a person decides."""
ROLLBACK_PAUSES = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))
"""The pauses before hosts that are not back are tried again; the last one repeats."""
_ENDED = FINISHED - {Phase.ROLLBACK_FAILED}
_CAUSES = {
    HeldBy.RUNBOOK: "an error of the runbook",
    HeldBy.SETTINGS: "an environment file that cannot be used",
    HeldBy.HOST: "an unreachable host",
    HeldBy.UPSTREAM: "an upstream that is away",
}
_HISTORY_MAX = 50
SILENT_SECONDS = lock.TTL_SECONDS / 2
"""A controller that has missed two renewals is probably dead: `runbook resume --due` waits for the end of its lock."""


@dataclass(frozen=True, kw_only=True)
class Care:
    """Whether a release is carried on."""

    release: Release
    carried: bool | None
    """Whether a living controller runs it; None when it needs none, because it has ended or a person decides."""
    since: datetime | None = None
    """Since when nobody carries it."""
    due: bool = False
    """Whether `runbook resume --due` takes it up now."""
    away: tuple[str, ...] = ()
    """Hosts that are not back and could not be reached. Once one answers, it is due."""
    due_at: datetime | None = None
    """When it will be due, if it is not yet. A controller that is silent may still renew its lock before."""
    at: datetime | None = None
    """The database's time of this answer."""
    sentence: str = ""


async def unfinished(bind: Bind, environment: str) -> Release:
    """The release of the environment that can be continued. Raises Refused when there is none."""
    found = await unfinished_releases(bind, environment)
    if not found:
        raise Refused(f"no release of {environment} is held or running")
    return found[0]


async def unfinished_releases(bind: Bind, environment: str) -> list[Release]:
    """The releases with something left to do: the live one, otherwise those that have not started, and after these
    the one whose rollback failed. A release that changed the hosts hides all older ones.
    """
    if (run := await releases.live(bind, environment)) is not None:
        return [run]
    found = []
    for past in await releases.history(bind, environment, limit=_HISTORY_MAX):
        if past.phase in (Phase.PLANNED, Phase.APPROVED):
            found.append(past)
            continue
        if past.phase is Phase.ROLLBACK_FAILED:
            found.append(past)
        changed_nothing = past.from_revision == past.to_revision
        if not changed_nothing and past.phase not in (Phase.REFUSED, Phase.ABORTED):
            break
    return found


async def find(bind: Bind, environment: str) -> Care | None:
    """The care of the release that is due, otherwise of the first one that has something left to do.

    None when no release of the environment has.
    """
    async with transaction(bind) as tx:
        found = [await care(tx, run) for run in await unfinished_releases(tx, environment)]
    by_urgency = sorted(found, key=lambda each: (not each.due, each.due_at is None))
    return by_urgency[0] if by_urgency else None


async def care(bind: Bind, run: Release) -> Care:
    """Whether this release is carried on."""
    if run.phase in _ENDED:
        return Care(release=run, carried=None)
    async with transaction(bind) as tx:
        now: datetime = (await tx.execute(SQL["now"])).scalar_one()
        holder = await lock.holder(tx, run.environment)
        sign = await lock.last_sign(tx, run.environment, run.token) if run.token is not None else None
        return replace(judge(run, await releases.phase_records(tx, run), holder, sign, now), at=now)


def judge(
    run: Release,
    records: Sequence[PhaseRecord],
    holder: Holder | None,
    last_sign: datetime | None,
    now: datetime,
) -> Care:
    """Whether a release is carried on, from its records, the lock, and the last sign of its last controller. Pure."""
    if run.phase in _ENDED:
        return Care(release=run, carried=None)
    if holder is not None and holder.alive:
        return _locked(run, holder)
    # Without a note, approved means that its process took the lock and died before its first change.
    waits = run.phase is Phase.APPROVED and records[-1].note.approval is not None
    if run.token is None and (waits or run.phase is Phase.PLANNED):
        return _not_started(run, records[-1], now)
    match run.phase:
        case Phase.HELD:
            return _held(run, records, now)
        case Phase.ROLLBACK_FAILED:
            return _not_back(run, records, now)
    since = last_sign or records[-1].started_at
    gone = f"its process {holder.name} has ended" if holder is not None and holder.has_ended else ""
    return Care(release=run, carried=False, since=since, due=True, sentence=_uncarried(since, gone))


_RUNS = frozenset({Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING})
"""Held in one of these, the released workers take live events."""


def is_watched(run: Release) -> bool:
    """Whether live traffic is looked at while this release is held."""
    return run.phase is Phase.HELD and run.resume_phase in _RUNS and run.from_revision != run.to_revision


_UNSTARTED = "nobody has started it: `runbook resume` does, `runbook abort` ends it"


def _not_started(run: Release, record: PhaseRecord, now: datetime) -> Care:
    """A plan starts by itself only where its request and every approval of it say so, and before they expire."""
    waits = record.note.approval
    if waits is None or waits.until is None:
        return Care(release=run, carried=None, sentence=_UNSTARTED)
    if now >= waits.until:
        sentence = f"its time was over at {_time(waits.until)}: `runbook resume --due` ends it"
    elif run.phase is Phase.PLANNED:
        sentence = f"it waits for approval until {_time(waits.until)}: `runbook approve`"
    elif waits.starts:
        since = f"it is approved since {_time(record.started_at)} and starts by itself"
        return Care(release=run, carried=False, since=record.started_at, due=True, sentence=since)
    else:
        sentence = f"it is approved until {_time(waits.until)}: `runbook resume` starts it"
    return Care(release=run, carried=None, sentence=sentence)


def _locked(run: Release, holder: Holder) -> Care:
    if holder.release_id == run.id:
        due_at = holder.expires_at if holder.silent_seconds > SILENT_SECONDS else None
        sentence = f"{holder.name} carries it, its lock was renewed {holder.silent_seconds:.0f} s ago"
        return Care(release=run, carried=True, due_at=due_at, sentence=sentence)
    sentence = f"{holder.name} has the lock for release {holder.release_id}"
    return Care(release=run, carried=False if run.phase in LIVE else None, sentence=sentence)


def _held(run: Release, records: Sequence[PhaseRecord], now: datetime) -> Care:
    by = held_by(records)
    held_at = records[-1].started_at
    match by:
        case HeldBy.DATABASE:
            sentence = (
                f"it is held since {_time(held_at)} because the database was away, and it answers again"
            )
            return Care(release=run, carried=False, since=held_at, due=True, sentence=sentence)
        case HeldBy.RUNBOOK | HeldBy.SETTINGS | HeldBy.HOST | HeldBy.UPSTREAM:
            tries = _times_held(records, by)
            cause = _CAUSES[by]
            if tries > len(RETRY_PAUSES):
                sentence = f"{cause} held it {tries} times in a row: a person decides"
                return Care(release=run, carried=None, sentence=sentence)
            due_at = held_at + RETRY_PAUSES[tries - 1]
            attempt = f"try {tries} of {len(RETRY_PAUSES)}"
            sentence = f"{cause} held it at {_time(held_at)}; {attempt} is due at {_time(due_at)}"
            return _not_before(run, held_at, due_at, now, sentence)
        case _:
            return Care(release=run, carried=None, sentence="a person decides")


def held_by(records: Sequence[PhaseRecord]) -> HeldBy | None:
    """What holds a held release: a person who took the hold over, otherwise what ended the phase before it."""
    own = records[-1].note.held_by
    return own if own is not None or len(records) < 2 else records[-2].note.held_by


def _times_held(records: Sequence[PhaseRecord], by: HeldBy) -> int:
    """How often the present phase was held for this reason, with nothing else in between."""
    before = [record for record in records if record.phase is not Phase.HELD]
    count = 0
    for record in reversed(before):
        if record.phase is not before[-1].phase or record.note.held_by is not by:
            break
        count += 1
    return count


def _not_back(run: Release, records: Sequence[PhaseRecord], now: datetime) -> Care:
    tries = [record for record in records if record.phase is Phase.ROLLING_BACK]
    returns = tries[-1].note.returns or {}
    missing = sorted(name for name, host in returns.items() if not host.back)
    away = tuple(name for name in missing if returns[name].away)
    failed_at = records[-1].started_at
    if not missing:
        return Care(release=run, carried=None, sentence="a person decides")
    due_at = failed_at + ROLLBACK_PAUSES[min(len(tries), len(ROLLBACK_PAUSES)) - 1]
    sooner = f", or when {' or '.join(away)} answers again" if away else ""
    since = f"{', '.join(missing)} is not back since {_time(failed_at)}"
    sentence = f"{since}; the next try is due at {_time(due_at)}{sooner}"
    return replace(_not_before(run, failed_at, due_at, now, sentence), away=away)


def _not_before(run: Release, since: datetime, due_at: datetime, now: datetime, sentence: str) -> Care:
    return Care(release=run, carried=False, since=since, due=now >= due_at, due_at=due_at, sentence=sentence)


def _uncarried(since: datetime, gone: str) -> str:
    why = f" ({gone})" if gone else ""
    return f"nobody carries this since {_time(since)}{why}"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%H:%M} UTC"
