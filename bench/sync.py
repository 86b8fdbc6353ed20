"""A full sync of many records from a stand-in for Zoho, while webhooks come in: time, memory, calls, and equal tables.

    python bench/sync.py [--records 100000] [--webhooks 2000] [--keep]

The sync and the worker are processes of their own, as in production; the stand-in runs in this one. Afterwards the same
records go into a second database as webhooks alone, and both are compared row for row. Nothing is asserted but that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from _load import prepare
from _place import Place, open_place
from _source import fill
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.entities.document import dump, load
from handlers.entities.incoming import incoming
from handlers.queue.event import EntityType, Operation
from handlers.receiver.writer import Call, write
from rehearsal.zoho.modules import detail_of
from rehearsal.zoho.organisation import Organisation
from rehearsal.zoho.same_tables import contents, differences
from rehearsal.zoho.server import CLIENT, ORGANISATION_ID, StandIn, stand_in

P, C, I = EntityType.PRODUCT, EntityType.CUSTOMER, EntityType.INVOICE  # noqa: E741
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- the last run of bench/sync.py -->", "<!-- end of the run of bench/sync.py -->"
FILE = """name = "bench"
[database]
url = "{url}"
[ssh]
user = "x"
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
calls_per_day = 10000000
calls_at_once = 8
queue_events_max = 2000
"""


@dataclass(kw_only=True)
class Run:
    """What was measured of one sync."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    calls: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since its start, and resident megabytes."""
    result: dict[str, Any] = field(default_factory=dict)

    def memory_at(self, share: float) -> float:
        """The largest resident megabytes up to that share of its time."""
        return max(mb for at, mb in self.memory if at <= share * self.seconds)


def webhook(organisation: Organisation, entity: EntityType, key: str) -> Call:
    """The record as a webhook brings it."""
    record: Any = load(dump(detail_of(entity, organisation.get(entity, key))))
    return Call(
        webhooks=[incoming(entity, record, Operation.UPDATE)], headers="{}", address=None, verified=True
    )


async def send(engine: AsyncEngine, source: StandIn, number: int, done: asyncio.Event) -> int:
    """Change records at the source while they are read, and send each change as a webhook. Returns their number."""
    organisation, chance = source.organisation, random.Random(3)
    keys = {entity: organisation.keys(entity) for entity in (P, C)}
    sent = 0
    while sent < number and not done.is_set():
        entity = chance.choice((P, P, P, C))
        key = chance.choice(keys[entity])
        name = "name" if entity is P else "contact_name"
        organisation.change(entity, key, **{name: f"changed {sent}"})
        async with engine.begin() as tx:
            await write(tx, [webhook(organisation, entity, key)])
        sent += 1
        await asyncio.sleep(0.03)
    return sent


async def measured(path: Path, source: StandIn, *words: str) -> Run:
    """Run `runbook sync` to its end, and look at its memory."""
    run, began, calls = Run(), time.monotonic(), source.calls.total()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "flows.cli",
        "sync",
        *words,
        "-e",
        str(path),
        "--json",
        stdout=asyncio.subprocess.PIPE,
    )
    watched = psutil.Process(process.pid)

    async def watch() -> None:
        while True:
            try:
                run.memory.append((time.monotonic() - began, watched.memory_info().rss / 1e6))
                run.cpu_seconds = sum(watched.cpu_times()[:2])
            except psutil.NoSuchProcess:
                return
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    out, _ = await process.communicate()
    watching.cancel()
    run.seconds, run.calls = time.monotonic() - began, source.calls.total() - calls
    run.result = json.loads(out)
    return run


async def until_empty(engine: AsyncEngine) -> None:
    """Wait until no event is open."""
    while True:
        async with engine.connect() as tx:
            sql = "SELECT count(*) FROM tds_sync_queue WHERE status NOT IN ('completed', 'dead_letter')"
            if not (await tx.execute(text(sql))).scalar_one():
                return
        await asyncio.sleep(0.5)


def chunks(keys: list[str], size: int = 500) -> Iterator[list[str]]:
    """*keys* in parts."""
    for at in range(0, len(keys), size):
        yield keys[at : at + size]


async def by_webhooks(engine: AsyncEngine, organisation: Organisation) -> None:
    """Everything that the source has now, as webhooks alone."""
    for entity in (C, P, I):
        for part in chunks(organisation.keys(entity)):
            async with engine.begin() as tx:
                await write(tx, [webhook(organisation, entity, key) for key in part])


def environment(folder: Path, name: str, url: str, source: StandIn) -> Path:
    """The environment file of one database."""
    for secret, value in CLIENT.items():
        (folder / secret).write_text(value, encoding="utf-8")
    path = folder / f"{name}.toml"
    text_ = FILE.format(url=url, organization=ORGANISATION_ID, folder=folder, accounts=source.url)
    path.write_text(text_, encoding="utf-8")
    return path


async def bench(
    place: Place, folder: Path, records: int, webhooks: int
) -> tuple[Run, Run, int, list[str], int]:
    """The first sync with webhooks beside it, the second one of nothing new, and the comparison."""
    template = await prepare(place, "sync_template")
    urls = [await place.clone(template) for _ in range(2)]
    engines = [create_async_engine(make_url(url).set(drivername="postgresql+asyncpg")) for url in urls]
    async with stand_in(StandIn(calls_at_once=50)) as source:
        fill(source.organisation, records)
        paths = [environment(folder, f"bench{at}", url, source) for at, url in enumerate(urls)]
        workers = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "flows.cli",
                "worker",
                "-e",
                str(path),
                stderr=asyncio.subprocess.DEVNULL,
            )
            for path in paths
        ]
        done = asyncio.Event()
        sending = asyncio.create_task(send(engines[0], source, webhooks, done))
        words = ("full", "--entity", "Customer", "--entity", "Product", "--entity", "Invoice")
        first = await measured(paths[0], source, *words)
        done.set()
        sent = await sending
        await until_empty(engines[0])
        print(
            f"first sync: {first.seconds:.0f} s, at most {first.memory_at(1):.0f} MB",
            file=sys.stderr,
            flush=True,
        )
        await by_webhooks(engines[1], source.organisation)
        await until_empty(engines[1])
        synced, webhooked = await contents(engines[0]), await contents(engines[1])
        print(f"compared: {differences(synced, webhooked) or 'equal'}", file=sys.stderr, flush=True)
        second = await measured(paths[0], source, *words)
        for worker in workers:
            worker.terminate()
            await worker.wait()
    for engine in engines:
        await engine.dispose()
    rows = sum(len(table) for table in synced.values())
    return first, second, sent, differences(synced, webhooked), rows


def report(records: int, first: Run, second: Run, *, sent: int, different: list[str], rows: int) -> str:
    """The result as Markdown."""
    cpu = [1e3 * run.cpu_seconds / records for run in (first, second)]
    queued = sum(step["queued"] for step in first.result["steps"])
    equal = f"equal: {rows} rows" if not different else "; ".join(different)
    return f"""{records} records (items, customers, invoices with lines), {sent} webhooks meanwhile; 2 cores for
the stand-in, PostgreSQL, the worker and the sync. The load of the machine at the end was {os.getloadavg()[0]:.1f}.

| | first full sync | second, nothing new |
|---|---|---|
| exit code | {first.result["exit_code"]} | {second.result["exit_code"]} |
| seconds | {first.seconds:.0f} | {second.seconds:.0f} |
| milliseconds a record | {1e3 * first.seconds / records:.2f} | {1e3 * second.seconds / records:.2f} |
| processor time of the sync a record, ms | {cpu[0]:.2f} | {cpu[1]:.2f} |
| calls of the API | {first.calls} | {second.calls} |
| events queued | {queued} | {sum(step["queued"] for step in second.result["steps"])} |
| memory after a tenth of its time, MB | {first.memory_at(0.1):.0f} | {second.memory_at(0.1):.0f} |
| memory after half of it, MB | {first.memory_at(0.5):.0f} | {second.memory_at(0.5):.0f} |
| largest memory, MB | {first.memory_at(1):.0f} | {second.memory_at(1):.0f} |

The tables beside those of a database that got the same records as webhooks alone: {equal}."""


def main() -> None:
    """Run it, print the result, and keep it in docs/performance.md with --keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--webhooks", type=int, default=2000)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    with open_place() as place, tempfile.TemporaryDirectory() as folder:
        first, second, sent, different, rows = asyncio.run(
            bench(place, Path(folder), options.records, options.webhooks)
        )
    said = report(options.records, first, second, sent=sent, different=different, rows=rows)
    print(said)
    if options.keep:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n{said}\n\n{END}{after}", encoding="utf-8")
    if different:
        sys.exit(1)


if __name__ == "__main__":
    main()
