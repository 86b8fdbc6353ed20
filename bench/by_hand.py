"""What looking at a queue of a million events by hand costs: with a few dead letters, and with nothing else.

    python bench/by_hand.py [--rows 1000000]

Prints the table and keeps it in docs/performance.md. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sized
from datetime import datetime, timedelta
from pathlib import Path

import _load
import asyncpg
from _place import Place, open_place
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from handlers.core import Clock
from handlers.database import clock
from handlers.environment.bars import Bars
from handlers.measurements import window
from handlers.measurements.window import Window
from handlers.queue import listing, look
from handlers.queue.event import EntityType, Status
from handlers.queue.listing import Filter
from handlers.status import one_event

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- the last run of bench/by_hand.py -->", "<!-- end of the run of bench/by_hand.py -->"
LOOKS = 3

FILL = """
INSERT INTO tds_sync_queue (id, inbox_event_id, entity_type, source_entity_id, operation_type, validated_payload,
    status, attempt_count, created_at, started_at, completed_at, locked_by, lock_expires_at, error_code,
    error_message, processing_result)
SELECT gen_random_uuid(), (SELECT id FROM tds_inbox_events LIMIT 1),
    CASE WHEN n % 100000 = 7 THEN 'bill' WHEN n % 3 = 0 THEN 'invoice' ELSE 'product' END::tds_entity_type,
    (n % 300000)::text, 'update', jsonb_build_object('item_id', n, 'text', repeat(md5(n::text), 12)),
    CASE WHEN dead THEN 'dead_letter' ELSE 'completed' END::tds_event_status, 1, at, at,
    CASE WHEN NOT dead THEN at END, 'w', at + interval '300 seconds', CASE WHEN dead THEN 'xd2s' END,
    CASE WHEN dead THEN 'greenlet_spawn has not been called for ' || n END, '{{"outcome": "applied"}}'
FROM generate_series(1, {rows}) AS n
CROSS JOIN LATERAL (SELECT {dead} AS dead, clock_timestamp() - make_interval(secs => n) AS at) t
"""

Measured = Callable[[AsyncConnection], Awaitable[Sized]]


def found(**wanted: object) -> Measured:
    """A list of twenty events."""
    return lambda tx: listing.find(tx, Filter(**wanted), 21)  # type: ignore[arg-type]


def looks(hour: datetime) -> dict[str, Measured]:
    """What is measured, by its line in the table."""

    async def whole(tx: AsyncConnection) -> Sized:
        counts = await look.counts(tx)
        listing.grouped(await listing.failed(tx))
        await window.read(tx, Bars(), Window.of(Clock(), await clock.now(tx), None), None)
        return counts

    async def event(tx: AsyncConnection) -> Sized:
        [newest] = await listing.find(tx, Filter(), 1)
        return (await one_event.read(tx, newest.id)).payload_keys

    return {
        "`queue list`": found(),
        "`--status dead_letter`": found(statuses=(Status.DEAD_LETTER,)),
        "`--status retry`, of which there are none": found(statuses=(Status.RETRY,)),
        "`--entity Bill`, ten in all": found(entities=(EntityType.BILL,)),
        "`--key`": found(key="4711"),
        "`--error`, a text in no event": found(error="no such text"),
        "`--since 1h`": found(since=hour),
        "`queue show`": whole,
        "`queue show --since 1h`, its counts": lambda tx: listing.counts_since(tx, hour),
        "`queue show ID`": event,
    }


async def measure(place: Place, name: str, rows: int, dead: str) -> dict[str, float]:
    """The median time of each look in milliseconds."""
    url = await place.server.create_database(name, template="base")
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO tds_inbox_events (id, source_type, entity_type, source_entity_id, raw_payload, idempotency_key,"
        " content_hash) VALUES (gen_random_uuid(), 'zoho', 'product', '1', '{}', 'k', 'h')"
    )
    await connection.execute(FILL.format(rows=rows, dead=dead))
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    times: dict[str, float] = {}
    async with engine.connect() as tx:
        hour = await clock.now(tx) - timedelta(hours=1)
    for what, run in looks(hour).items():
        taken = []
        for _ in range(LOOKS):
            # A connection of its own each time, as a command has.
            async with engine.connect() as tx:
                began = time.perf_counter()
                await run(tx)
                taken.append(time.perf_counter() - began)
        times[what] = 1000 * statistics.median(taken)
        print(f"{name}: {what} {times[what]:.1f} ms", flush=True)
    await engine.dispose()
    await place.drop(url)
    return times


async def main(rows: int) -> None:
    """Measure, print, and keep the table."""
    with open_place() as place:
        await _load.prepare(place, "base")
        few = await measure(place, "few", rows, "n % 17241 = 3")
        all_ = await measure(place, "all", rows, "true")
    lines = [
        f"| {rows:,} events | {rows // 17241} dead letters among them, ms | all of them dead letters, ms |",
        "|---|---|---|",
        *(f"| {what} | {few[what]:.0f} | {all_[what]:.0f} |" for what in few),
    ]
    text = "\n".join(lines)
    print(text)
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    PAGE.write_text(f"{head}{_BEGIN}\n{text}\n\n{_END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    asyncio.run(main(parser.parse_args().rows))
