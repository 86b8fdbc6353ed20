# mypy: ignore-errors
"""The workers of the sync queue.

What the ERP knows already is applied as it always was, in one transaction. New items and invoices go through the new
queue service: there an error is swallowed, the session is rolled back, and the next look at the row raises
MissingGreenlet.
"""

import asyncio
import logging
import os
import signal
from datetime import UTC, datetime
from uuid import UUID

import beat
from entity_handlers import HANDLERS, is_new
from models import SyncQueue
from queue_service import QueueService, waits_for_its_turn
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

log = logging.getLogger(__name__)

WORKERS = 2
BATCH = 100
POLL_SECONDS = 0.5


class Worker:
    """Takes rows from the queue, one after the other."""

    def __init__(self, name: str, sessions: async_sessionmaker[AsyncSession]) -> None:
        self.name = name
        self.sessions = sessions

    async def run(self) -> None:
        while True:
            try:
                async with self.sessions() as session:
                    waiting = await QueueService(session).pending(BATCH)
                for event_id in waiting:
                    await self.process(event_id)
                if not waiting:
                    await asyncio.sleep(POLL_SECONDS)
            except Exception:
                log.exception("%s: error in the loop", self.name)
                await asyncio.sleep(5)

    async def process(self, event_id: UUID) -> None:
        try:
            async with self.sessions() as session:
                if await self.process_at_once(session, event_id):
                    return
            async with self.sessions() as session:
                queue = QueueService(session)
                row = (await session.execute(select(SyncQueue).where(SyncQueue.id == event_id))).scalar_one()
                if row.status == "dead_letter" or not await queue.acquire_lock(event_id, self.name):
                    return
                await queue.mark_as_processing(event_id)
                log.info("%s: %s %s", self.name, row.entity_type, row.source_entity_id)
                local_id = await HANDLERS[row.entity_type](session, row.validated_payload)
                await queue.mark_as_completed(event_id, local_id)
        except Exception as error:
            log.exception("%s: event %s failed", self.name, event_id)
            async with self.sessions() as session:
                await QueueService(session).mark_as_failed(event_id, error)

    async def process_at_once(self, session: AsyncSession, event_id: UUID) -> bool:
        """Apply and complete the row in one transaction; False for a record that is new."""
        began = datetime.now(UTC)
        found = select(SyncQueue).where(SyncQueue.id == event_id, waits_for_its_turn())
        row = await session.scalar(found.with_for_update(skip_locked=True))
        if row is None:
            # Another worker was faster.
            return True
        if await is_new(session, row.entity_type, row.source_entity_id):
            return False
        row.target_entity_id = await HANDLERS[row.entity_type](session, row.validated_payload)
        row.status = "completed"
        row.attempt_count += 1
        row.started_at, row.completed_at = began, datetime.now(UTC)
        await session.commit()
        return True


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    url = os.environ["ERP_DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, pool_size=5, pool_pre_ping=True)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await asyncio.gather(*(Worker(f"worker-{n}", sessions).run() for n in range(1, WORKERS + 1)))
    except asyncio.CancelledError:
        log.info("told to stop")
    finally:
        await engine.dispose()


if __name__ == "__main__":
    beat.start()
    try:
        asyncio.run(main())
    finally:
        beat.stop()
