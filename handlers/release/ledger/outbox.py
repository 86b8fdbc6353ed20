"""The outbox: what people are told is written here first, in the transaction of what it tells where there is one.

`handlers/notify` sends it. Of one kind (a release and a topic) three are sent in an hour; the fourth stands for all
further ones and is sent later, with their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, remembered_yes, transaction
from handlers.environment.notification import Severity
from handlers.release.note import PhaseNote
from handlers.release.phase import Phase, Release, short
from handlers.release.topic import ENDS, RECOVERIES, Topic, of_phase, severity_of, severity_of_hold

SQL = queries(__name__)

SAME_MAX = 3
"""So many messages of one kind are sent in WINDOW_SECONDS."""
WINDOW_SECONDS = 3600.0
SUMMARY_SECONDS = 600.0
"""So long after the fourth one, all further ones of its kind are told in one message."""
STALE_SECONDS = 3600.0
"""A message that nobody has begun to send for so long is not sent any more: its news is old."""
STALE_PAGE_SECONDS = 86_400.0
MORE = "more than three of its kind in an hour: counted, not sent"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message with what is needed to write it out."""

    id: int
    environment: str
    release_id: str | None
    topic: Topic
    subject: str
    severity: Severity
    sentence: str
    is_summary: bool
    from_revision: str | None
    to_revision: str | None
    requested_by: str | None
    more: int
    """Of a summary: how many others it stands for."""

    @classmethod
    def from_row(cls, row: Row[Any]) -> Message:
        """From the query `message`."""
        return cls(
            **{**row._mapping, "topic": Topic(row.topic), "severity": Severity(row.severity)},
        )


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A delivery that is ours for a while."""

    message_id: int
    address: str
    by: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the outbox: a message, and what came of it at one address."""

    id: int
    release_id: str | None
    topic: str
    severity: str
    sentence: str
    written_at: datetime
    addressed_at: datetime | None
    not_sent: str
    """Why it is sent to nobody; empty where it is."""
    address: str | None
    due_at: datetime | None
    tries: int | None
    ended_at: datetime | None
    given_up: bool
    answer: str

    @classmethod
    def from_row(cls, row: Row[Any]) -> Entry:
        """From the query `list`."""
        return cls(**row._mapping)

    @property
    def state(self) -> str:
        """`sent`, `given up`, `waiting`, or `not sent`."""
        if self.not_sent:
            return "not sent"
        if self.given_up:
            return "given up"
        return "sent" if self.ended_at is not None else "waiting"


async def follow(tx: AsyncConnection, before: Phase, release: Release, note: PhaseNote) -> None:
    """Tell people of a change of the phase, in the transaction in which *release* has left the phase *before*."""
    topic = of_phase(before, release.phase)
    if topic is None:
        return
    sentence = release.reason
    if topic is Topic.STARTED:
        what = f"{short(release.from_revision)} to {short(release.to_revision)}"
        if release.from_revision == release.to_revision:
            what = f"a run on {short(release.to_revision)}, without a deploy"
        sentence = f"it begins, asked for by {release.requested_by}: {what}"
    severity = severity_of_hold(note.held_by) if topic is Topic.HELD else None
    await write(tx, release.environment, topic, sentence, release_id=release.id, severity=severity)


async def write(
    bind: Bind,
    environment: str,
    topic: Topic,
    sentence: str,
    *,
    release_id: str | None = None,
    subject: str = "",
    severity: Severity | None = None,
    sent_otherwise: str = "",
    once: bool = False,
) -> int | None:
    """Write a message, and return its id. None where nobody needs it: a recovery from what was never told.

    *sent_otherwise* says how it was sent already, and keeps it from being sent again. With *once* it is written only
    where the same trouble was not told before, or was over since.
    """
    async with transaction(bind) as tx:
        if not await remembered_yes(tx, "outbox", SQL["is_there"]):
            return None
        kind = {"environment": environment, "release_id": release_id, "topic": topic}
        await tx.execute(SQL["serialize"], {"environment": environment})
        over = await _over(tx, {**kind, "subject": clean(subject)}, topic)
        if topic in RECOVERIES and not over:
            return None
        of_subject = {**kind, "subject": clean(subject)}
        if once and (await tx.execute(SQL["is_told"], of_subject)).scalar_one():
            return None
        values = {**kind, "window_seconds": WINDOW_SECONDS}
        before = (await tx.execute(SQL["of_its_kind"], values)).scalar_one()
        return await _write(
            tx,
            {
                **kind,
                "subject": clean(subject),
                "severity": severity or severity_of(topic),
                "sentence": clean(sentence),
                "is_summary": before == SAME_MAX and not sent_otherwise,
                "not_sent": sent_otherwise or (MORE if before > SAME_MAX else ""),
            },
        )


async def is_due(bind: Bind, environment: str) -> bool:
    """Whether anything is to be sent now, or is being sent."""
    async with transaction(bind) as tx:
        if not await remembered_yes(tx, "outbox", SQL["is_there"]):
            return False
        values = {"environment": environment, "summary_seconds": SUMMARY_SECONDS}
        return bool((await tx.execute(SQL["is_due"], values)).scalar_one())


@dataclass(frozen=True, kw_only=True)
class Unaddressed:
    """A message that has no deliveries yet."""

    id: int
    severity: Severity
    now: datetime
    is_stale: bool


async def to_address(tx: AsyncConnection, environment: str) -> list[Unaddressed]:
    """The messages that have no deliveries yet, ours until the transaction ends."""
    values = {
        "environment": environment,
        "stale_seconds": STALE_SECONDS,
        "stale_page_seconds": STALE_PAGE_SECONDS,
        "summary_seconds": SUMMARY_SECONDS,
    }
    rows = await tx.execute(SQL["to_address"], values)
    return [Unaddressed(**{**row._mapping, "severity": Severity(row.severity)}) for row in rows]


async def address(tx: AsyncConnection, id_: int, names: Iterable[str], *, due_at: datetime) -> None:
    """Make the deliveries of a message."""
    await tx.execute(SQL["address"], {"id": id_, "addresses": list(names), "due_at": due_at})
    await tx.execute(SQL["addressed"], {"id": id_, "not_sent": ""})


async def send_to_nobody(tx: AsyncConnection, id_: int, why: str) -> None:
    """Close a message that nobody is told of."""
    await tx.execute(SQL["addressed"], {"id": id_, "not_sent": why})


async def claim(
    bind: Bind, environment: str, *, by: str, seconds: float, limit: int, only: int = 0
) -> list[Claimed]:
    """Claim deliveries that are due, the oldest messages first. *only* limits it to one message."""
    async with transaction(bind) as tx:
        values = {
            "environment": environment,
            "by": by,
            "seconds": float(seconds),
            "limit": limit,
            "only": only,
        }
        rows = await tx.execute(SQL["claim"], values)
        return sorted((Claimed(**row._mapping, by=by) for row in rows), key=lambda each: each.message_id)


async def begin_try(bind: Bind, claimed: Claimed, *, seconds: float) -> tuple[int, timedelta] | None:
    """Count the try, and return its number and the time since the first one. None where somebody else has it now."""
    async with transaction(bind) as tx:
        row = (await tx.execute(SQL["begin_try"], _of(claimed, seconds=float(seconds)))).one_or_none()
        return (row.tries, row.trying) if row else None


async def end(bind: Bind, claimed: Claimed, *, answer: str, thread: str = "", given_up: bool = False) -> None:
    """Write down that it is sent, or given up."""
    async with transaction(bind) as tx:
        values = _of(claimed, answer=clean(answer), thread=clean(thread), given_up=given_up)
        await tx.execute(SQL["end"], values)


async def later(bind: Bind, claimed: Claimed, *, answer: str, seconds: float) -> None:
    """Give a delivery back that was not taken; it is due again after *seconds*."""
    async with transaction(bind) as tx:
        await tx.execute(SQL["later"], _of(claimed, answer=clean(answer), seconds=float(seconds)))


async def message(bind: Bind, id_: int) -> Message:
    """A message with what is needed to write it out."""
    async with transaction(bind) as tx:
        return Message.from_row((await tx.execute(SQL["message"], {"id": id_})).one())


async def thread(bind: Bind, release_id: str, address: str) -> str:
    """The thread of a release at an address; empty where the first message has none."""
    async with transaction(bind) as tx:
        values = {"release_id": release_id, "address": address}
        return (await tx.execute(SQL["thread"], values)).scalar_one_or_none() or ""


async def entries(bind: Bind, environment: str, *, limit: int) -> list[Entry]:
    """The newest messages, oldest first, with what came of them at each address."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["list"], {"environment": environment, "limit": limit})
        return [Entry.from_row(row) for row in rows]


async def _over(tx: AsyncConnection, values: Mapping[str, object], topic: Topic) -> bool:
    """Mark the messages of the trouble that *topic* ends; whether there were any."""
    if topic not in ENDS:
        return False
    given = {**values, "topics": list(ENDS[topic])}
    given.pop("topic")
    ended = [row.id for row in await tx.execute(SQL["over"], given)]
    await tx.execute(SQL["drop_summaries"], {"ids": ended})
    return bool(ended)


async def _write(tx: AsyncConnection, values: Mapping[str, object]) -> int:
    id_: int = (await tx.execute(SQL["write"], dict(values))).scalar_one()
    return id_


def _of(claimed: Claimed, **values: object) -> dict[str, object]:
    return {"message_id": claimed.message_id, "address": claimed.address, "by": claimed.by, **values}
