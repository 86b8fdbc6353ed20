"""The worker beside what PostgreSQL can do at best and beside other queues, as ratios within one run.

    python bench/queue_worker.py [--jobs 20000] [--backlog 100000] [--history 100000] [--repeat 3] [--only WORD]

Prints the table and, unless --only narrows it, keeps it in docs/performance.md. Nothing is asserted: a ratio that
falls short is printed as short.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import _load
import _report
import asyncpg
from _latency import latency
from _place import Cost, Place, execute, open_place, run
from _report import Line

WORKER: Mapping[str, Any] = {"what": "worker"}
ONCE_FROM = 200_000
"""Backlogs of this size are drained once, and their database is not copied: the runs before were the repetitions."""


@dataclass(kw_only=True)
class Bench:
    """One run: what was measured so far, and the lines of its table."""

    place: Place
    jobs: int
    backlog: int
    history: int
    repeat: int
    lines: list[Line] = field(default_factory=list)
    costs: dict[str, Cost] = field(default_factory=dict)

    async def measure(
        self,
        name: str,
        template: str,
        clients: Sequence[Mapping[str, Any]],
        jobs: int,
        *,
        snapshot: bool = False,
    ) -> Cost:
        """The median run, by processor time, of *clients* on fresh copies of *template*."""
        costs = []
        once = jobs >= ONCE_FROM
        for _ in range(1 if once else self.repeat):
            # So large a database is not copied: there is room for one.
            url = await (self.place.take(template) if once else self.place.clone(template))
            holder = await _hold_snapshot(url) if snapshot else None
            try:
                costs.append(await run(self.place, url, clients, jobs))
            finally:
                if holder is not None:
                    await holder.close()
            await self.place.drop(url)
        found = sorted(costs, key=lambda cost: cost.us)[len(costs) // 2]
        self.costs[name] = found
        print(_report.measured(name, found), flush=True)
        return found

    def compare(
        self,
        what: str,
        against: str,
        target: float,
        *,
        ours: float,
        theirs: float,
        basis: str = "CPU",
        note: str = "",
    ) -> None:
        """A line of the table: how many times as fast *ours* is as *theirs*, both in time a job."""
        self.lines.append(
            Line(what=what, against=against, basis=basis, ratio=theirs / ours, target=target, note=note)
        )


async def _hold_snapshot(url: str) -> asyncpg.Connection:
    """A transaction that has looked at the database and stays open: nothing deleted since can be cleaned up."""
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.fetchval("SELECT count(*) FROM tds_sync_runs")
    return connection


async def statement(bench: Bench) -> None:
    """One worker and two against the single statement, with all mapped columns and with fifteen."""
    await _load.backlog(bench.place, "products", "base", _load.products(bench.jobs), existing=True)
    jobs = bench.jobs
    floor = await bench.measure("one SQL statement, all columns", "products", [{"what": "floor"}], jobs)
    one = await bench.measure("worker, all columns", "products", [WORKER], jobs)
    two = await bench.measure("two workers, all columns", "products", [WORKER, WORKER], jobs)
    narrow_floor = await bench.measure(
        "one SQL statement, 15 columns", "products", [{"what": "floor", "narrow": True}], jobs
    )
    narrow = await bench.measure("worker, 15 columns", "products", [{**WORKER, "narrow": True}], jobs)
    for cost, base, columns in ((one, floor, "all columns"), (narrow, narrow_floor, "15 columns")):
        name = f"one SQL statement, {columns}"
        bench.compare("worker, one process", name, 0.5, ours=cost.us, theirs=base.us)
        bench.compare("worker, one process", name, 0.5, ours=cost.wall_us, theirs=base.wall_us, basis="rate")
    bench.compare(
        "two workers",
        "one SQL statement, all columns",
        0.8,
        ours=two.wall_us,
        theirs=floor.wall_us,
        basis="rate",
        note="processor time cannot show what two processes gain",
    )


async def peers(bench: Bench) -> None:
    """The ERP's own way, and the queues that pip installs."""
    ours, light = bench.costs["worker, all columns"], bench.costs["worker, 15 columns"]
    few = max(400, bench.jobs // 20)
    for what, label, target, module in (
        ("erp", "the ERP's own worker (imitated: five commits an event)", 60.0, ""),
        ("procrastinate", "Procrastinate, ten at a time", 20.0, "procrastinate"),
        ("pgqueuer", "PgQueuer, batches of 200", 4.0, "pgqueuer"),
    ):
        if module and importlib.util.find_spec(module) is None:
            bench.lines.append(
                Line.skipped(what="worker", against=label, target=target, why=f"{module} not installed")
            )
            continue
        theirs = await bench.measure(
            label, "products", [{"what": what}], few if what != "pgqueuer" else 5 * few
        )
        for name, cost in (("worker, all columns", ours), ("worker, 15 columns", light)):
            against = f"{label}, 15 columns"
            bench.compare(name, against, target, ours=cost.us, theirs=theirs.us)
            bench.compare(name, against, target, ours=cost.wall_us, theirs=theirs.wall_us, basis="rate")


async def kinds(bench: Bench) -> None:
    """All eleven kinds with lines and parents against products alone, by rows written."""
    jobs = bench.jobs // 11 * 11
    await _load.backlog(bench.place, "mixed", "base", _load.mixed(jobs))
    mixed = await bench.measure("eleven kinds mixed", "mixed", [WORKER], jobs)
    alone = bench.costs["worker, all columns"]
    bench.compare(
        "eleven kinds mixed, a row written", "products alone", 0.5, ours=mixed.us_a_row, theirs=alone.us_a_row
    )


async def poison(bench: Bench) -> None:
    """One bad event in a hundred: one that the mapper sees, and one that only the database sees."""
    jobs = bench.jobs // 2
    await _load.backlog(bench.place, "clean", "base", _load.products(jobs))
    clean = await bench.measure("no bad events", "clean", [WORKER], jobs)
    for seen_by in ("mapper", "database"):
        work = _load.spoilt(_load.products(jobs), every=100, seen_by=seen_by)
        await _load.backlog(bench.place, f"bad_{seen_by}", "base", work)
        bad = await bench.measure(f"1 % bad, seen by the {seen_by}", f"bad_{seen_by}", [WORKER], jobs)
        bench.compare(f"1 % bad events, seen by the {seen_by}", "none", 0.5, ours=bad.us, theirs=clean.us)


async def size(bench: Bench) -> None:
    """A long backlog, a long history, an old snapshot: an event must not cost more for them."""
    small = 10_000
    await _load.backlog(bench.place, "small", "base", _load.products(small))
    little = await bench.measure(f"backlog of {small:,}", "small", [WORKER], small)
    held = await bench.measure("the same beside an old snapshot", "small", [WORKER], small, snapshot=True)
    bench.compare(f"{small:,} beside an old snapshot", "without it", 0.9, ours=held.us, theirs=little.us)

    await _load.backlog(bench.place, "burst", "base", _load.products(small), analyzed=False)
    burst = await bench.measure("the same, statistics from before it", "burst", [WORKER], small)
    bench.compare(
        f"{small:,}, statistics from before it", "fresh statistics", 0.9, ours=burst.us, theirs=little.us
    )

    before = _load.products(bench.history, first=10_000_000)
    await _load.backlog(bench.place, "history", "base", before, status="completed")
    await _load.backlog(bench.place, "behind", "history", _load.products(small))
    await bench.place.server.drop_database("history")
    behind = await bench.measure(f"{bench.history:,} completed rows in front", "behind", [WORKER], small)
    await bench.place.server.drop_database("behind")
    bench.compare(f"{bench.history:,} completed rows in front", "none", 0.9, ours=behind.us, theirs=little.us)

    await _load.backlog(bench.place, "large", "base", _load.products(bench.backlog))
    much = await bench.measure(f"backlog of {bench.backlog:,}", "large", [WORKER], bench.backlog)
    if bench.backlog < ONCE_FROM:
        await bench.place.server.drop_database("large")
    bench.compare(
        f"backlog of {bench.backlog:,}, an event", f"{small:,}", 0.9, ours=much.us, theirs=little.us
    )
    bench.lines.append(
        Line(
            what=f"client memory at {bench.backlog:,}",
            against=f"{small:,}",
            basis="peak",
            ratio=much.peak_mb / little.peak_mb,
            target=1.1,
            at_most=True,
            note=f"{much.peak_mb:.0f} MB, of at most 200",
        )
    )


async def limits(bench: Bench) -> None:
    """Products while invoices are limited, with none in the queue and behind many: a limit slows its own type only."""
    work, held = _load.products(bench.jobs), bench.backlog * 2
    for name, before in (("limited", 0), ("behind", held)):
        await _load.backlog(
            bench.place, name, "base", chain(_load.invoices(before), _load.products(bench.jobs))
        )
        await execute(
            bench.place.server.url(name),
            "INSERT INTO runbook.intake (entity_type, per_ten_seconds, until, set_by, reason)"
            " VALUES ('invoice', 3, now() + interval '1 hour', 'bench', 'limited')",
        )
    await _load.backlog(bench.place, "unlimited", "base", work)
    free = await bench.measure("products, no limit", "unlimited", [WORKER], bench.jobs)
    for name, label in (
        ("limited", "invoices limited"),
        ("behind", f"the same behind {held:,} held invoices"),
    ):
        found = await bench.measure(label, name, [WORKER], bench.jobs)
        bench.compare(f"products, {label}", "no limit", 0.7, ours=found.us, theirs=free.us)
        await bench.place.server.drop_database(name)
    await bench.place.server.drop_database("unlimited")


async def idle(bench: Bench) -> None:
    """One event on an idle queue, from its commit to its completion being visible."""
    url = await bench.place.clone("base")
    took = await latency(url, events=200)
    await bench.place.drop(url)
    p50, p99 = statistics.median(took), sorted(took)[int(len(took) * 0.99) - 1]
    bench.lines.append(Line.latency(p50_ms=p50 * 1000, p99_ms=p99 * 1000))


PARTS: Mapping[str, Callable[[Bench], Awaitable[None]]] = {
    "statement": statement,
    "peers": peers,
    "kinds": kinds,
    "poison": poison,
    "size": size,
    "limits": limits,
    "idle": idle,
}


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--history", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, action="append")
    given = parser.parse_args()
    with open_place() as place:
        bench = Bench(
            place=place, jobs=given.jobs, backlog=given.backlog, history=given.history, repeat=given.repeat
        )
        await _load.prepare(place, "base")
        for name in PARTS:
            # The peers and the kinds are compared with the worker of the first part.
            needed = name == "statement" and {"peers", "kinds"} & set(given.only or ())
            if not given.only or name in given.only or needed:
                await PARTS[name](bench)
        table = _report.table(bench.lines)
        print(f"\n{table}")
        if not given.only:
            conditions = _report.conditions(place, jobs=bench.jobs, repeat=bench.repeat)
            _report.keep(conditions, table, _report.costs(bench.costs))


if __name__ == "__main__":
    asyncio.run(main())
