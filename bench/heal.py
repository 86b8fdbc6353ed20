"""What one run of healing costs on a queue of a million events: with a few dead letters, and with nothing else.

    python bench/heal.py [--rows 1000000]

Prints the table and keeps it in docs/performance.md. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import _load
import asyncpg
from _place import Place, open_place
from by_hand import FILL

from handlers.core import Core, open_core
from handlers.environment.load import parse
from handlers.phases import heal_batch, heal_leases
from handlers.phases.heal_letters import standings
from handlers.phases.heal_preview import preview
from handlers.release.ledger import heals

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- the last run of bench/heal.py -->", "<!-- end of the run of bench/heal.py -->"
LOOKS = 3
Measured = Callable[[Core], Awaitable[object]]


async def choose(core: Core) -> object:
    """Which letters healing may send back now."""
    async with core.database.connect() as tx:
        return await standings(tx, core, core.environment.name, everything=False)


async def send(core: Core) -> object:
    """The first batch of a round: chosen, redriven and recorded; then called back, for the next look."""
    claim = await heals.claim(core.database, core.environment.name, by="bench", seconds=600)
    assert claim is not None
    out = await heal_batch.send(core, claim)
    if out is not None:
        await heal_batch.call_back(core, claim, out, "measured")
    await heals.free(core.database, claim)
    return out


LINES: dict[str, Measured] = {
    "leases, where none is lost": heal_leases.would_take_back,
    "choosing the letters": choose,
    "a batch: chosen, sent, recorded, called back": send,
    "`heal --dry-run`": preview,
}


async def measure(place: Place, name: str, rows: int, dead: str) -> dict[str, float]:
    """The median time of each in milliseconds."""
    url = await place.server.create_database(name, template="base")
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO tds_inbox_events (id, source_type, entity_type, source_entity_id, raw_payload, idempotency_key,"
        " content_hash) VALUES (gen_random_uuid(), 'zoho', 'product', '1', '{}', 'k', 'h')"
    )
    await connection.execute(FILL.format(rows=rows, dead=dead))
    await connection.execute("VACUUM ANALYZE")
    beat = "INSERT INTO runbook.worker (owner, host, pid, revision, beat_at) VALUES ('w', 'h', 1, 'r', now() + '1 h')"
    await connection.execute(beat)
    await connection.close()
    values = {
        "name": "bench",
        "database": {"url": url},
        "ssh": {"user": "x", "key_file": "/none", "known_hosts_file": "/none"},
        "hosts": [{"name": "web-1", "address": "127.0.0.1", "health_url": "http://127.0.0.1:1/"}],
        "deploy": {"directory": "/srv/erp"},
        "services": {},
    }
    times: dict[str, float] = {}
    async with open_core(parse(values, source="bench")) as core:
        for what, run in LINES.items():
            taken = []
            for _ in range(LOOKS):
                began = time.perf_counter()
                await run(core)
                taken.append(time.perf_counter() - began)
            times[what] = 1000 * statistics.median(taken)
            print(f"{name}: {what} {times[what]:.0f} ms", flush=True)
    await place.drop(url)
    return times


async def main(rows: int) -> None:
    """Measure, print, and keep the table."""
    with open_place() as place:
        await _load.prepare(place, "base")
        few = await measure(place, "few", rows, "n % 17241 = 3")
        all_ = await measure(place, "all", rows, "true")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = [
        f"| {rows:,} events | {rows // 17241} dead letters among them, ms | all of them dead letters, ms |",
        "|---|---|---|",
        *(f"| {what} | {few[what]:.0f} | {all_[what]:.0f} |" for what in few),
        f"| memory of the process at most, MB | | {memory:.0f} |",
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
