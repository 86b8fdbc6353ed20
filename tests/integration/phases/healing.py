"""An environment that is healed, on a real queue, with workers of ours that really work."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core, open_core
from handlers.database.engine import worker_engine
from handlers.environment.load import parse
from handlers.environment.model import Environment
from handlers.phases import heal
from handlers.phases.heal import Healed
from handlers.queue.event import EntityType
from handlers.release.ledger import heals, outbox
from handlers.release.ledger.heals import Action, HealEvent
from handlers.worker.worker import Worker, new_owner
from tests.integration.queue.events import dead_letter
from tests.integration.worker.steps import until

NAME = "healed"
DAY = 86_400.0
GREENLET = "greenlet_spawn has not been called; can't call await_only() here"
OTHER = "the connection pool is exhausted"
PRODUCT, CUSTOMER, INVOICE = EntityType.PRODUCT, EntityType.CUSTOMER, EntityType.INVOICE


def environment(database_url: str, **sections: Any) -> Environment:
    """An environment whose healing is quick."""
    heal_section = {"settle_seconds": 60, "run_seconds": 30} | sections.pop("heal", {})
    bars = {"oldest_seconds": 600} | sections.pop("bars", {})
    return parse(
        {
            "name": NAME,
            "database": {"url": database_url},
            "ssh": {"user": "x", "key_file": "/none", "known_hosts_file": "/none"},
            "hosts": [{"name": "web-1", "address": "127.0.0.1", "health_url": "http://127.0.0.1:1/"}],
            "deploy": {"directory": "/srv/erp"},
            "services": {},
            "drain": {"poll_seconds": 0.05},
            "heal": heal_section,
            "bars": bars,
        }
        | sections,
        source="test",
    )


@dataclass(frozen=True, kw_only=True)
class Place:
    """An environment that is healed."""

    core: Core

    @property
    def engine(self) -> AsyncEngine:
        """Its database."""
        return self.core.database

    async def letter(
        self, key: str, entity: EntityType = PRODUCT, *, age: float = 2 * DAY, **columns: Any
    ) -> UUID:
        """A dead letter that came and died *age* seconds ago; workers can apply it now, unless *columns* differ."""
        payload = columns.pop("payload", None) or payload_of(key, entity)
        values = {"validated_payload": f"sql:'{json.dumps(payload)}'::jsonb", "error_message": GREENLET}
        return await dead_letter(self.engine, key, entity=entity, age=age, **values | columns)

    async def heal(self) -> Healed:
        """A run comes by."""
        return await heal.run(self.core)

    async def events(self) -> list[HealEvent]:
        """Every letter that was sent back."""
        async with self.engine.connect() as tx:
            return await heals.events(tx, NAME)

    async def actions(self) -> list[Action]:
        """What was done, the oldest first."""
        return (await heals.history(self.engine, NAME, 100))[::-1]

    async def sizes(self) -> list[int]:
        """How many letters each batch had."""
        return [each.events for each in await self.actions() if each.kind == "batch"]

    async def statuses(self) -> dict[str, str]:
        """The status of each event, by its record's key."""
        async with self.engine.connect() as tx:
            rows = await tx.execute(text("SELECT source_entity_id, status::text FROM tds_sync_queue"))
            return {row.source_entity_id: row.status for row in rows}

    async def letter_of(self, key: str) -> dict[str, Any]:
        """The row of the event of this record."""
        async with self.engine.connect() as tx:
            found = await tx.execute(
                text("SELECT * FROM tds_sync_queue WHERE source_entity_id = :key"), {"key": key}
            )
            return dict(found.mappings().one())

    async def rests(self) -> list[tuple[str, int, float]]:
        """What rests: the type, how often it did, and for how many seconds more."""
        async with self.engine.connect() as tx:
            rows = await tx.execute(
                text(
                    "SELECT entity_type, times, extract(epoch FROM until - clock_timestamp())::float8"
                    " FROM runbook.heal_stop WHERE until > now() AND lifted_at IS NULL"
                )
            )
            return [(row[0], row[1], row[2]) for row in rows]

    async def told(self) -> Counter[str]:
        """What people were told, by topic."""
        return Counter(entry.topic for entry in await outbox.entries(self.engine, NAME, limit=100))

    async def execute(self, statement: str) -> None:
        """Change something behind everybody's back."""
        async with self.engine.begin() as tx:
            await tx.execute(text(statement))

    async def beat(self, owner: str = "test-1-00000000") -> None:
        """A worker shows that it lives, and takes nothing."""
        await self.execute(
            "INSERT INTO runbook.worker (owner, host, pid, revision) "
            f"VALUES ('{owner}', 'h', 1, 'r1') ON CONFLICT (owner) DO UPDATE SET beat_at = clock_timestamp()"
        )

    async def tables(self) -> dict[str, list[str]]:
        """Every row of every table, as PostgreSQL prints it."""
        async with self.engine.connect() as tx:
            names = await tx.execute(
                text(
                    "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                    "WHERE schemaname IN ('public', 'runbook') ORDER BY 1"
                )
            )
            found = {}
            for name in names.scalars().all():
                rows = await tx.execute(text(f"SELECT t::text FROM {name} t ORDER BY 1"))
                found[name] = list(rows.scalars())
            return found


def payload_of(key: str, entity: EntityType) -> dict[str, Any]:
    """A payload that our workers apply."""
    if entity is CUSTOMER:
        return {"contact_id": key, "contact_name": f"c {key}", "contact_type": "customer"}
    return {"item_id": key, "name": f"item {key}", "rate": "5.00"}


def refused(key: str) -> dict[str, Any]:
    """A product that no revision can read."""
    return {"item_id": key, "name": f"item {key}", "rate": f"bad {key}"}


@asynccontextmanager
async def place(database_url: str, **sections: Any) -> AsyncIterator[Place]:
    """A place without workers."""
    async with open_core(environment(database_url, **sections)) as core:
        yield Place(core=core)


@asynccontextmanager
async def working(database_url: str, revision: str = "r1") -> AsyncIterator[Worker]:
    """A worker of ours that works until the end of the block."""
    engine, stop = worker_engine(database_url, lease_seconds=60), asyncio.Event()
    one = Worker(engine, owner=new_owner("test"), revision=revision, poll_seconds=0.05, beat_seconds=1.0)
    running = asyncio.create_task(one.run(stop))

    async def is_alive() -> bool:
        async with engine.connect() as tx:
            values = {"owner": one.owner}
            found = await tx.execute(text("SELECT 1 FROM runbook.worker WHERE owner = :owner"), values)
            return found.first() is not None

    try:
        await until(is_alive, 20)
        yield one
    finally:
        stop.set()
        await running
        await engine.dispose()
