"""Storing webhooks: many calls in one transaction (group commit), each answered after the commit.

While one transaction is committed, the next calls gather. So groups grow when the database is slow, and a single call
on an idle machine does not wait. Groups run one after the other: calls are written in the order of their webhook.
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

from handlers.database.sqlstate import CONTENT, is_away
from handlers.entities.incoming import Incoming
from handlers.queue.diagnose import Diagnosis, diagnose
from handlers.queue.event import EntityType
from handlers.queue.insert import NewEvent, insert_new, lock_records
from handlers.receiver.kept_connection import KeptConnection
from handlers.receiver.rejected import Rejected, retry_after

log = logging.getLogger(__name__)

GROUP_MAX = 500
"""Most events in one transaction, unless a single call has more."""
_RETRY_AFTER_SECONDS = 10
_CLOSE_SECONDS = 5.0
_SOURCE = "zoho"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One received webhook: its records, and the stored facts about the HTTP call."""

    webhooks: Sequence[Incoming]
    headers: str
    """As JSON text."""
    address: str | None
    verified: bool


@dataclass(frozen=True, kw_only=True)
class WriteResult:
    """The result of a call: the events now in the queue, and the number of duplicate records."""

    events: tuple[UUID, ...]
    duplicates: int


@dataclass(frozen=True, kw_only=True)
class _QueuedCall:
    call: Call
    size: int
    answer: asyncio.Future[WriteResult]


class Writer:
    """Writes calls in groups. After *seconds* a transaction is cancelled, and its calls must be sent again."""

    def __init__(
        self, engine: AsyncEngine, *, seconds: float = 4.0, bytes_max: int = 64 * 1024 * 1024
    ) -> None:
        self._connection = KeptConnection(engine)
        self._seconds = seconds
        self._bytes_max = bytes_max
        self._waiting: deque[_QueuedCall] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """The number of calls that are not written yet."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the writing task."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write the waiting calls, then stop. Calls that are not answered by then must be sent again."""
        if self._task is None:
            return
        self._closing = True
        self._wake.set()
        await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._connection.close()
        _refuse(list(self._waiting), retry_after("stopping", "the receiver is stopping; send it again", 2))

    async def write(self, call: Call) -> WriteResult:
        """Write *call* and return after the commit. Raises Rejected if it cannot be written."""
        size = sum(len(webhook.payload) for webhook in call.webhooks)
        if self._bytes + size > self._bytes_max:
            raise retry_after(
                "overloaded", "webhooks arrive faster than they can be stored; send it again", 10
            )
        answer: asyncio.Future[WriteResult] = asyncio.get_running_loop().create_future()
        self._waiting.append(_QueuedCall(call=call, size=size, answer=answer))
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
                _refuse(group, retry_after("stopping", "the receiver is stopping; send it again", 2))
                raise
            finally:
                self._bytes -= sum(queued.size for queued in group)

    def _next(self) -> list[_QueuedCall]:
        group = [self._waiting.popleft()]
        events = len(group[0].call.webhooks)
        while self._waiting and events + len(self._waiting[0].call.webhooks) <= GROUP_MAX:
            group.append(self._waiting.popleft())
            events += len(group[-1].call.webhooks)
        return group

    async def _write(self, group: Sequence[_QueuedCall]) -> None:
        """Write a group. If the values of one call are refused, the others are written without it."""
        try:
            async with asyncio.timeout(self._seconds):
                results = await self._connection.transaction(
                    partial(write, calls=[queued.call for queued in group])
                )
        except Exception as error:  # for any error, the source must learn that nothing was stored
            diagnosis = diagnose(error)
            if is_away(error) or isinstance(error, TimeoutError) or not _is_content(diagnosis):
                log.warning("%d webhooks not written: %s", len(group), diagnosis.message.splitlines()[0])
                sentence = "the webhook could not be stored; send it again"
                _refuse(group, retry_after("database", sentence, _RETRY_AFTER_SECONDS))
            elif len(group) == 1:
                _refuse(group, Rejected(422, "no_record", "the database cannot store a value of this record"))
            else:
                middle = len(group) // 2
                await self._write(group[:middle])
                await self._write(group[middle:])
            return
        for queued, result in zip(group, results, strict=True):
            if not queued.answer.done():
                queued.answer.set_result(result)


async def write(tx: AsyncConnection, calls: Sequence[Call]) -> list[WriteResult]:
    """Write the new records of *calls* in order, and wake the workers. Returns one result for each call.

    Two statements: the second needs a snapshot taken after the first has waited for its locks.
    """
    flat = [(call, webhook, uuid4()) for call in calls for webhook in call.webhooks]
    check_flags = _checks_needed([webhook for _, webhook, _ in flat])
    sent = [
        (*entry, must_check)
        for entry, must_check in zip(flat, check_flags, strict=True)
        if must_check is not None
    ]
    await lock_records(tx, [(webhook.entity, webhook.key) for _, webhook, _, _ in sent])
    queued_ids = await insert_new(
        tx,
        [
            NewEvent(
                id=id_,
                entity=webhook.entity,
                key=webhook.key,
                operation=webhook.operation,
                payload=webhook.payload,
                content=webhook.content,
                headers=call.headers,
                address=call.address,
                verified=call.verified,
                stamped=webhook.stamped,
                deduplicated=must_check,
            )
            for call, webhook, id_, must_check in sent
        ],
        source=_SOURCE,
    )
    ids = iter(id_ for _, _, id_ in flat)
    results: list[WriteResult] = []
    for call in calls:
        events = tuple(id_ for id_ in islice(ids, len(call.webhooks)) if id_ in queued_ids)
        results.append(WriteResult(events=events, duplicates=len(call.webhooks) - len(events)))
    return results


def _checks_needed(webhooks: Sequence[Incoming]) -> list[bool | None]:
    """For each webhook: whether the database must check that it is new; None for a duplicate within this group.

    The first webhook of a record is checked. A later one without a stamp is new if it differs from the previous one.
    """
    versions: set[str] = set()
    newest: dict[tuple[EntityType, str], str] = {}
    check_flags: list[bool | None] = []
    for webhook in webhooks:
        record = (webhook.entity, webhook.key)
        previous = newest.get(record)
        if (webhook.stamped and webhook.content in versions) or previous == webhook.content:
            check_flags.append(None)
            continue
        check_flags.append(webhook.stamped or previous is None)
        versions.add(webhook.content)
        newest[record] = webhook.content
    return check_flags


def _is_content(diagnosis: Diagnosis) -> bool:
    """Whether the values were refused, by the class of the SQLSTATE: data, a constraint, or a limit of the server."""
    return diagnosis.sqlstate is not None and diagnosis.sqlstate.startswith(CONTENT)


def _refuse(group: Sequence[_QueuedCall], rejected: Rejected) -> None:
    for queued in group:
        if not queued.answer.done():
            queued.answer.set_exception(rejected)
