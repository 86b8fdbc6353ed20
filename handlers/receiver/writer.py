"""Writing webhooks down: many calls in one transaction, each answered only when that has committed.

While one transaction is on its way to the disk the next calls gather, so a group is as large as the database is slow,
and a single call on an idle machine waits for nobody. One group follows the other: calls are written in the order in
which they came.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.queries import queries
from handlers.database.sqlstate import CONTENT, is_away
from handlers.queue.diagnose import Diagnosis, diagnose
from handlers.queue.event import QUEUE_NAMES, EntityType
from handlers.queue.redrive import CHANNEL
from handlers.receiver.intake import Webhook
from handlers.receiver.kept_connection import KeptConnection
from handlers.receiver.rejected import Rejected, later

log = logging.getLogger(__name__)

GROUP_MAX = 500
"""So many events at most in one transaction, unless a single call brings more."""
_RETRY_AFTER_SECONDS = 10
_CLOSE_SECONDS = 5.0

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One webhook as it came in: its records, and what is kept about how it came."""

    arrivals: Sequence[Webhook]
    headers: str
    """As JSON text."""
    address: str | None
    verified: bool


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of a call: the events that are now in the queue, and how many records said nothing new."""

    events: tuple[UUID, ...]
    duplicates: int


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    call: Call
    size: int
    answer: asyncio.Future[Written]


class Writer:
    """Writes calls in groups. *seconds* is how long one transaction may take before the source is told to wait."""

    def __init__(
        self, engine: AsyncEngine, *, seconds: float = 4.0, bytes_max: int = 64 * 1024 * 1024
    ) -> None:
        self._line = KeptConnection(engine)
        self._seconds = seconds
        self._bytes_max = bytes_max
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many calls have not been written yet."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write what still waits, then end. Who has not been answered by then sends its call again."""
        if self._task is None:
            return
        self._closing = True
        self._wake.set()
        await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._line.close()
        _refuse(list(self._waiting), later("stopping", "the receiver stops: send it again", 2))

    async def write(self, call: Call) -> Written:
        """Have *call* written and return once it has been, or raise No where it cannot be."""
        size = sum(len(arrival.payload) for arrival in call.arrivals)
        if self._bytes + size > self._bytes_max:
            raise later("overloaded", "more is coming in than can be written down: send it again", 10)
        answer: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(call=call, size=size, answer=answer))
        self._bytes += size
        self._wake.set()
        return await answer

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            group = self._next()
            try:
                await self._write(group)
            except asyncio.CancelledError:
                _refuse(group, later("stopping", "the receiver stops: send it again", 2))
                raise
            finally:
                self._bytes -= sum(each.size for each in group)

    def _next(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        events = len(group[0].call.arrivals)
        while self._waiting and events + len(self._waiting[0].call.arrivals) <= GROUP_MAX:
            group.append(self._waiting.popleft())
            events += len(group[-1].call.arrivals)
        return group

    async def _write(self, group: Sequence[_Waiting]) -> None:
        """Write a group. Where one call is to blame, the others are written without it."""
        try:
            async with asyncio.timeout(self._seconds):
                written = await self._line.transaction(partial(write, calls=[each.call for each in group]))
        except Exception as error:  # whatever it is, the source must hear that nothing was kept
            told = diagnose(error)
            if is_away(error) or isinstance(error, TimeoutError) or not _is_content(told):
                log.warning("%d webhooks not written: %s", len(group), told.message.splitlines()[0])
                sentence = "the webhook could not be written down: send it again"
                _refuse(group, later("database", sentence, _RETRY_AFTER_SECONDS))
            elif len(group) == 1:
                _refuse(group, Rejected(422, "no_record", "the database cannot keep a value of this record"))
            else:
                half = len(group) // 2
                await self._write(group[:half])
                await self._write(group[half:])
            return
        for each, answer in zip(group, written, strict=True):
            if not each.answer.done():
                each.answer.set_result(answer)


async def write(tx: AsyncConnection, calls: Sequence[Call]) -> list[Written]:
    """Write the records of *calls* that say something new, in order, and wake the workers.

    Two statements: the second must not see the database as it was before the first has waited.
    """
    flat = [(call, arrival, uuid4()) for call in calls for arrival in call.arrivals]
    asked = _questions([arrival for _, arrival, _ in flat])
    sent = [(*each, ask) for each, ask in zip(flat, asked, strict=True) if ask is not None]
    await tx.execute(_SQL["one_at_a_time"], {"names": [f"{a.entity}:{a.key}" for _, a, _, _ in sent]})
    rows = await tx.execute(
        _SQL["arrive"],
        {
            "ids": [id_ for _, _, id_, _ in sent],
            "inbox_ids": [uuid4() for _ in sent],
            "entities": [QUEUE_NAMES[arrival.entity] for _, arrival, _, _ in sent],
            "keys": [arrival.key for _, arrival, _, _ in sent],
            "operations": [arrival.operation.value for _, arrival, _, _ in sent],
            "payloads": [arrival.payload for _, arrival, _, _ in sent],
            "contents": [arrival.content for _, arrival, _, _ in sent],
            "headers": [call.headers for call, _, _, _ in sent],
            "addresses": [call.address for call, _, _, _ in sent],
            "verified": [call.verified for call, _, _, _ in sent],
            "stamped": [arrival.stamped for _, arrival, _, _ in sent],
            "asked": [ask for _, _, _, ask in sent],
            "channel": CHANNEL,
        },
    )
    queued = {row.id for row in rows}
    ids = iter(id_ for _, _, id_ in flat)
    told = []
    for call in calls:
        events = tuple(id_ for id_ in islice(ids, len(call.arrivals)) if id_ in queued)
        told.append(Written(events=events, duplicates=len(call.arrivals) - len(events)))
    return told


def _questions(arrivals: Sequence[Webhook]) -> list[bool | None]:
    """For each arrival: whether the database must be asked if it is new; None where this group knows that it is not.

    The first of a record asks. A later one without a stamp is new when it differs from the one before it.
    """
    versions: set[str] = set()
    newest: dict[tuple[EntityType, str], str] = {}
    asked: list[bool | None] = []
    for arrival in arrivals:
        record = (arrival.entity, arrival.key)
        before = newest.get(record)
        if (arrival.stamped and arrival.content in versions) or before == arrival.content:
            asked.append(None)
            continue
        asked.append(arrival.stamped or before is None)
        versions.add(arrival.content)
        newest[record] = arrival.content
    return asked


def _is_content(told: Diagnosis) -> bool:
    """Whether the values themselves were refused: a class of SQLSTATE that says so, or a limit of the server."""
    return told.sqlstate is not None and told.sqlstate.startswith(CONTENT)


def _refuse(group: Sequence[_Waiting], no: Rejected) -> None:
    for each in group:
        if not each.answer.done():
            each.answer.set_exception(no)
