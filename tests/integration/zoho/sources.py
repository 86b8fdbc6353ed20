"""A source, an environment that reads it, and workers that apply what was read: all real, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import make_url

from handlers.core import Core, open_core
from handlers.entities.incoming import incoming
from handlers.entities.registry import HANDLERS
from handlers.environment.load import load_environment
from handlers.errors import RunbookError
from handlers.queue.event import EntityType, Operation
from handlers.receiver.writer import Call, write
from handlers.worker.worker import Worker, new_owner
from handlers.zoho import outcome, reading, runs
from handlers.zoho.outcome import Outcome, entities_of
from handlers.zoho.runs import Kind
from rehearsal.zoho.server import CLIENT, ORGANISATION_ID, StandIn, stand_in

P = EntityType.PRODUCT
NEWEST = datetime(2025, 11, 5, 12)
FILE = """
name = "synced"
[database]
url = "{database}"
[ssh]
user = "nobody"
key_file = "/none"
known_hosts_file = "/none"
[[hosts]]
name = "web-1"
address = "127.0.0.1"
health_url = "http://127.0.0.1:1/"
[deploy]
directory = "/srv/erp"
[services]
[zoho]
organization_id = "{organization}"
client_id = "file:{folder}/client_id"
client_secret = "file:{folder}/client_secret"
refresh_token = "file:{folder}/refresh_token"
accounts_url = "{accounts}"
calls_per_minute = 100000
{more}
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A source and the environment that reads it."""

    core: Core
    source: StandIn
    path: Path

    async def sync(self, kind: Kind = Kind.FULL, *entities: EntityType, deletes_all: bool = False) -> Outcome:
        """One sync to its end, as the flow does it."""
        run = await runs.begin(
            self.core.database,
            "synced",
            kind,
            entities_of(kind, entities),
            by="test",
            deletes_all=deletes_all,
        )
        try:
            for entity in run.entities:
                await reading.read(self.core, run, entity)
        except RunbookError as error:
            return await outcome.stop(self.core, run, error)
        return await outcome.finish(self.core, run)

    async def work(self) -> None:
        """Let a worker apply everything that is due."""
        worker = Worker(self.core.database, owner=new_owner("test"), revision="r1")
        while await worker.step():
            pass

    async def sync_and_work(self, kind: Kind = Kind.FULL, *entities: EntityType) -> Outcome:
        """A sync, and a worker that applies what it has queued."""
        found = await self.sync(kind, *entities)
        await self.work()
        return found

    async def webhook(self, entity: EntityType, record: dict[str, Any], *, deleted: bool = False) -> None:
        """A webhook as the receiver stores it."""
        operation = Operation.DELETE if deleted else Operation.UPDATE
        call = Call(webhooks=[incoming(entity, record, operation)], headers="{}", address=None, verified=True)
        async with self.core.database.begin() as tx:
            await write(tx, [call])

    async def query(self, sql: str, **values: Any) -> list[Any]:
        """The rows of a query."""
        async with self.core.database.connect() as tx:
            return list((await tx.execute(text(sql), values)).all())

    async def database_says(self, sql: str) -> None:
        """Change the ledger behind everybody's back, as time does."""
        async with self.core.database.begin() as tx:
            await tx.execute(text(sql))

    async def column(self, entity: EntityType, name: str) -> dict[str, Any]:
        """One column of the ERP's table by source id, of records that are not deleted."""
        table = HANDLERS[entity].table
        rows = await self.query(f"SELECT {table.key}, {name} FROM {table.name} WHERE zoho_deleted_at IS NULL")
        return {row[0]: row[1] for row in rows}

    async def events(self) -> list[Any]:
        """The events that syncs have queued: key, operation, status."""
        return await self.query(
            "SELECT q.source_entity_id AS key, q.operation_type::text AS operation, q.status::text AS status,"
            " q.validated_payload AS payload FROM tds_sync_queue q JOIN tds_inbox_events i ON i.id = q.inbox_event_id"
            " WHERE i.source_type = 'reconciliation' ORDER BY q.created_at, q.id"
        )


@asynccontextmanager
async def place(
    folder: Path, database_url: str, more: str = "queue_events_max = 5000", *, source: StandIn | None = None
) -> AsyncIterator[Place]:
    """A source that is served, and the core of an environment that reads it."""
    async with stand_in(source) as served:
        path = environment_file(folder, database_url, served, more)
        async with open_core(load_environment(str(path))) as core:
            yield Place(core=core, source=served, path=path)


def environment_file(
    folder: Path, database_url: str, source: StandIn, more: str = "queue_events_max = 5000"
) -> Path:
    """The environment file, with its secrets beside it."""
    for name, value in CLIENT.items():
        (folder / name).write_text(value, encoding="utf-8")
    path = folder / "synced.toml"
    path.write_text(
        FILE.format(
            database=make_url(database_url).render_as_string(hide_password=False),
            organization=ORGANISATION_ID,
            folder=folder,
            accounts=source.url,
            more=more,
        ),
        encoding="utf-8",
    )
    return path


def item(number: int, **values: Any) -> dict[str, Any]:
    """A product; the later its number, the older its change."""
    return {
        "item_id": f"26466100000{number:08d}",
        "name": f"item {number}",
        "sku": f"S-{number}",
        "rate": 10 + number,
        "status": "active",
        "stock_on_hand": 5,
        "created_time": "2025-01-01T10:00:00+0300",
        "last_modified_time": (NEWEST - timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%S+0300"),
        **values,
    }


def fill(source: StandIn, number: int, *, first: int = 0) -> list[str]:
    """Give the source some products; returns their ids."""
    return [source.organisation.put(P, item(at)) for at in range(first, first + number)]
