# mypy: ignore-errors
"""The state of the queue's rows: who holds them and how far they have come."""

import logging
from datetime import UTC, datetime, timedelta
from uuid import UUID

from models import SyncQueue
from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

log = logging.getLogger(__name__)

TRANSIENT = ("timeout", "connection refused", "connection reset", "deadlock", "too many connections")


def waits_for_its_turn() -> ColumnElement[bool]:
    """Pending, or to be tried again by now, and nobody has it."""
    now = datetime.now(UTC)
    return and_(
        or_(SyncQueue.status == "pending", and_(SyncQueue.status == "retry", SyncQueue.next_retry_at <= now)),
        or_(SyncQueue.locked_by.is_(None), SyncQueue.lock_expires_at < now),
    )


class QueueService:
    """Every change of a queue row goes through here."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def pending(self, limit: int) -> list[UUID]:
        """The oldest rows that wait for their turn."""
        rows = await self.session.scalars(
            select(SyncQueue.id)
            .where(waits_for_its_turn(), SyncQueue.attempt_count < 5)
            .order_by(SyncQueue.created_at)
            .limit(limit)
        )
        return list(rows)

    async def acquire_lock(self, event_id: UUID, worker: str) -> bool:
        """Hold the row for five minutes, unless another worker holds it."""
        now = datetime.now(UTC)
        held = await self.session.execute(
            update(SyncQueue)
            .where(SyncQueue.id == event_id)
            .where(or_(SyncQueue.locked_by.is_(None), SyncQueue.lock_expires_at < now))
            .values(locked_by=worker, lock_expires_at=now + timedelta(minutes=5))
        )
        await self.session.commit()
        return bool(held.rowcount)

    async def mark_as_processing(self, event_id: UUID) -> bool:
        """The row is being worked on."""
        return await self._change(event_id, status="processing", processing_started_at=datetime.now(UTC))

    async def mark_as_completed(self, event_id: UUID, local_id: str) -> bool:
        """The row is done."""
        return await self._change(
            event_id, status="completed", processing_completed_at=datetime.now(UTC), local_entity_id=local_id
        )

    async def mark_as_failed(self, event_id: UUID, error: BaseException) -> None:
        """Try again later what may be cured by waiting; everything else is a dead letter."""
        row = (await self.session.execute(select(SyncQueue).where(SyncQueue.id == event_id))).scalar_one()
        row.attempt_count += 1
        row.error_message = str(error)
        row.error_code = getattr(error, "code", None) or type(error).__name__
        row.locked_by = row.lock_expires_at = None
        transient = any(word in str(error).lower() for word in TRANSIENT)
        if transient and row.attempt_count < row.max_retry_attempts:
            row.status = "retry"
            row.next_retry_at = datetime.now(UTC) + timedelta(minutes=2**row.attempt_count)
        else:
            row.status = "dead_letter"
        await self.session.commit()

    async def _change(self, event_id: UUID, **values: object) -> bool:
        try:
            await self.session.execute(update(SyncQueue).where(SyncQueue.id == event_id).values(**values))
            await self.session.commit()
        except Exception:
            log.exception("could not update queue row %s", event_id)
            await self.session.rollback()
            return False
        return True
