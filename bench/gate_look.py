"""What one look of the gate at the queue costs: behind a long history, with a long backlog, and for the day before.

    python bench/gate_look.py [--rows 1000000]

A look must cost the same behind a million rows as behind ten thousand. Prints the table and keeps it in
docs/performance.md. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import _load
import asyncpg
from _place import Place, open_place
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from handlers.database import clock
from handlers.queue.changes import changes, day_before

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- the last run of bench/gate_look.py -->", "<!-- end of the run of bench/gate_look.py -->"
LOOKS = 15
FEW = 10_000

_FILL = """
INSERT INTO tds_sync_queue (id, inbox_event_id, entity_type, source_entity_id, operation_type, validated_payload,
    status, attempt_count, created_at, started_at, completed_at, locked_by, lock_expires_at, processing_result)
SELECT gen_random_uuid(), (SELECT id FROM tds_inbox_events LIMIT 1),
    (ARRAY['product', 'customer', 'invoice', 'order'])[1 + n % 4]::tds_entity_type, (n % 20000)::text, 'update', '{{}}',
    '{status}', {attempts}, at, {taken}, {taken}, {owner}, {lease},
    {result}
FROM generate_series(1, {rows}) AS n
CROSS JOIN LATERAL (SELECT clock_timestamp() - interval '{oldest}' * (1 - n::float8 / {rows})
    - interval '{newest}' AS at) t
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


async def measure(place: Place, name: str, *filling: str) -> tuple[float, float]:
    """The median time of a look, and of the day before, in milliseconds."""
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
    async with engine.connect() as tx:
        since = await clock.now(tx) - timedelta(seconds=130)
        look = await _median(lambda: changes(tx, since=since, open_=[]))
        before = await _median(lambda: _before(tx))
    await engine.dispose()
    await place.drop(url)
    print(f"{name}: a look {look:.1f} ms, the day before {before:.0f} ms", flush=True)
    return look, before


async def _before(tx: AsyncConnection) -> None:
    await day_before(tx, await clock.now(tx))


async def _median(call: Callable[[], Awaitable[object]]) -> float:
    times = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


async def main(rows: int) -> None:
    """Measure, print, and keep the table."""
    with open_place() as place:
        await _load.prepare(place, "base")
        few = await measure(place, "few", fill(FEW, oldest="20 days", newest="1 day"))
        many = await measure(place, "many", fill(rows, oldest="20 days", newest="1 day"))
        crowd = await measure(
            place,
            "crowd",
            fill(FEW, oldest="20 days", newest="1 day"),
            fill(rows // 5, oldest="2 hours", newest="1 second", pending=True),
        )
        busy = await measure(place, "busy", fill(rows // 5, oldest="1 day", newest="5 minutes"))
    lines = [
        "| a look of the gate | milliseconds | against 10,000 rows | the day before, ms |",
        "|---|---|---|---|",
        *(
            f"| {what} | {cost[0]:.1f} | {cost[0] / few[0]:.2f} | {cost[1]:.0f} |"
            for what, cost in (
                ("10,000 rows of history", few),
                (f"{rows:,} rows of history", many),
                (f"{rows // 5:,} events wait for a worker", crowd),
                (f"{rows // 5:,} events on the day before", busy),
            )
        ),
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
