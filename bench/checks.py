"""What measuring all checks of a database costs: behind a long history, on a busy day, and with a long backlog.

    python bench/checks.py [--rows 1000000]

Rows carry a payload of a kilobyte, as webhooks do. Prints the table and keeps it in docs/performance.md. Nothing is
asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from datetime import timedelta
from pathlib import Path

import _load
import asyncpg
from _place import Place, open_place
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from handlers.core import Clock
from handlers.database import clock
from handlers.environment.bars import Bars
from handlers.measurements import tables, window
from handlers.measurements.window import Window
from handlers.report import sections
from handlers.report.sections import Span

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- the last run of bench/checks.py -->", "<!-- end of the run of bench/checks.py -->"
LOOKS = 5
FEW = 10_000

_FILL = """
INSERT INTO tds_sync_queue (id, inbox_event_id, entity_type, source_entity_id, operation_type, validated_payload,
    status, attempt_count, created_at, started_at, completed_at, locked_by, lock_expires_at, processing_result)
SELECT gen_random_uuid(), (SELECT id FROM tds_inbox_events LIMIT 1),
    (ARRAY['product', 'customer', 'invoice', 'order'])[1 + n % 4]::tds_entity_type, (n % 20000)::text, 'update',
    jsonb_build_object('text', (SELECT string_agg(md5((n + i)::text), '') FROM generate_series(1, 30) i)),
    '{status}', {attempts}, at, {taken}, {taken}, {owner}, {lease},
    {result}
FROM generate_series(1, {rows}) AS n
CROSS JOIN LATERAL (SELECT clock_timestamp() - interval '{oldest}' * (1 - n::float8 / {rows})
    - interval '{newest}' AS at) t
"""
_PRODUCTS = """
INSERT INTO products (zoho_item_id, name, synced_at)
SELECT n::text, repeat('x', 200), now() - interval '30 days' * (n::float8 / {rows}) FROM generate_series(1, {rows}) n
"""


def fill(rows: int, *, oldest: str, newest: str, pending: bool = False) -> str:
    """Events from *oldest* before *newest* until then, all applied or all waiting for a worker."""
    return _FILL.format(
        status="pending" if pending else "completed",
        attempts=0 if pending else 1,
        taken="NULL" if pending else "at + interval '1 second'",
        owner="NULL" if pending else "'w'",
        lease="NULL" if pending else "at + interval '300 seconds'",
        result="NULL" if pending else """'{"worker": "w", "revision": "abcdef0123"}'""",
        rows=rows,
        oldest=oldest,
        newest=newest,
    )


async def measure(place: Place, name: str, *filling: str) -> tuple[float, float, float]:
    """The median times of the checks of the queue, of a report's sections, and of the products, in milliseconds."""
    url = await place.server.create_database(name, template="base")
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO tds_inbox_events (id, source_type, entity_type, source_entity_id, raw_payload, idempotency_key,"
        " content_hash) VALUES (gen_random_uuid(), 'zoho', 'product', '1', '{}', 'k', 'h')"
    )
    for statement in (*filling, fill(240, oldest="4 minutes", newest="1 second"), "VACUUM ANALYZE"):
        await connection.execute(statement)
    await connection.close()
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    queue, sections_, products = [], [], []
    async with engine.connect() as tx:
        for _ in range(LOOKS):
            began = time.perf_counter()
            await _queue(tx)
            queue.append(time.perf_counter() - began)
            began = time.perf_counter()
            at = await clock.now(tx)
            await sections.of_queue(tx, Span(since=at - timedelta(days=1), until=at))
            sections_.append(time.perf_counter() - began)
            began = time.perf_counter()
            await tables.read(tx, "products", ["synced_at", "updated_at"], at, at - timedelta(hours=1))
            products.append(time.perf_counter() - began)
    await engine.dispose()
    await place.drop(url)
    checks, report, table = (statistics.median(times) * 1000 for times in (queue, sections_, products))
    print(f"{name}: checks {checks:.0f} ms, sections {report:.0f} ms, a table {table:.0f} ms", flush=True)
    return checks, report, table


async def _queue(tx: AsyncConnection) -> None:
    span = Window.of(Clock(), await clock.now(tx))
    await window.read(tx, Bars(), span, None)


async def main(rows: int) -> None:
    """Measure, print, and keep the table."""
    with open_place() as place:
        await _load.prepare(place, "base")
        few = await measure(
            place, "few", fill(FEW, oldest="20 days", newest="2 days"), _PRODUCTS.format(rows=FEW)
        )
        many = await measure(
            place, "many", fill(rows, oldest="20 days", newest="2 days"), _PRODUCTS.format(rows=rows)
        )
        busy = await measure(place, "busy", fill(rows, oldest="1 day", newest="5 minutes"))
        crowd = await measure(place, "crowd", fill(rows, oldest="2 hours", newest="1 second", pending=True))
    lines = [
        "| the queue | its checks, ms | the sections of a report, ms |",
        "|---|---|---|",
        f"| {FEW:,} rows of history | {few[0]:.0f} | {few[1]:.0f} |",
        f"| {rows:,} rows of history | {many[0]:.0f} | {many[1]:.0f} |",
        f"| {rows:,} events on the last day | {busy[0]:.0f} | {busy[1]:.0f} |",
        f"| {rows:,} events wait for a worker | {crowd[0]:.0f} | {crowd[1]:.0f} |",
        "",
        f"Freshness of a table of {FEW:,} rows: {few[2]:.0f} ms, of {rows:,} rows: {many[2]:.0f} ms.",
    ]
    text = "\n".join(lines)
    print(text)
    page = PAGE.read_text(encoding="utf-8")
    if _BEGIN in page:
        head, _, rest = page.partition(_BEGIN)
        _, _, tail = rest.partition(_END)
        PAGE.write_text(f"{head}{_BEGIN}\n{text}\n\n{_END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    asyncio.run(main(parser.parse_args().rows))
