"""The receiver at a hundred times its number, beside a bare FastAPI endpoint of one insert a call, in one run.

    python bench/receiver.py [--seconds 10] [--repeat 3]

Real bodies of 2 to 20 KB, signed, from a process of its own on the same machine as the receiver and its database.
Prints the tables and keeps them in docs/performance.md. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _load
import _report
import psutil
from _place import Place, hear, open_place, say

from rehearsal.postgres import free_port

ROOT = Path(__file__).parents[1]
SECRET = "benchmarksecret1"
HUNDREDFOLD = 100 * 100 / 60
"""Calls a second: a hundred times the hundred a minute of the runbook."""
FIRST, STEP = 3 * HUNDREDFOLD, 1.2
"""Where the search for the highest rate begins, and how it goes on."""
HELD_SECONDS = 1.0
"""A rate is held when every call is accepted and 99 of 100 are answered in this time; the source waits five seconds."""
TRIES = 2
"""Other work on the machine can spoil one."""
_BEGIN, _END = "<!-- the last run of bench/receiver.py -->", "<!-- end of the run of bench/receiver.py -->"

OURS, BARE = "the receiver", "a bare endpoint"
RECEIVERS: Mapping[str, Sequence[str]] = {
    OURS: (
        *("-m", "flows.cli", "receive", "--database-url", "env:BENCH_URL", "--secret", "env:BENCH_SECRET"),
        *("--per-minute-max", "0", "--port"),
    ),
    BARE: (str(Path(__file__).with_name("_naive.py")),),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One receiver under one load."""

    rate: float
    calls: int
    good: int
    seconds: float
    p50: float
    p99: float
    body_bytes: float
    process_us: float
    """Processor time of the receiver's process a call."""
    database_us: float
    megabytes: float

    @property
    def us(self) -> float:
        return self.process_us + self.database_us

    @property
    def held(self) -> bool:
        return self.good == self.calls and self.p99 <= HELD_SECONDS


@dataclass(kw_only=True)
class Bench:
    """A whole run."""

    place: Place
    seconds: float

    async def measure(self, name: str, rate: float) -> Run:
        """Offer *rate* calls a second to a fresh receiver on a fresh database."""
        number = int(rate * self.seconds)
        url = await self.place.clone("base")
        try:
            with receiving(RECEIVERS[name], url) as (process, port):
                offer(port, rate=50, number=100, first=0)  # connections and statements are prepared
                before, database_before = _cpu(process), self.place.cpu_seconds()
                told = offer(port, rate=rate, number=number, first=1000)
                found = Run(
                    rate=rate,
                    calls=number,
                    good=told["statuses"].get("200", 0),
                    seconds=told["seconds"],
                    p50=told["p50"],
                    p99=told["p99"],
                    body_bytes=told["bytes"],
                    process_us=(_cpu(process) - before) / number * 1e6,
                    database_us=(self.place.cpu_seconds() - database_before) / number * 1e6,
                    megabytes=process.memory_info().rss / 2**20,
                )
        finally:
            await self.place.drop(url)
        print(
            f"{name:16} {rate:5.0f}/s  p50 {found.p50 * 1000:7.1f} ms  p99 {found.p99 * 1000:7.1f} ms  process"
            f" {found.process_us:5.0f} µs  database {found.database_us:5.0f} µs  {found.good} of {number}",
            flush=True,
        )
        return found

    async def usual(self, repeat: int) -> dict[str, Run]:
        """The median run of each, by processor time, at the hundredfold; in turns, so that they share the weather."""
        runs: dict[str, list[Run]] = {name: [] for name in RECEIVERS}
        for _ in range(repeat):
            for name, found in runs.items():
                found.append(await self.measure(name, HUNDREDFOLD))
        return {name: sorted(found, key=lambda run: run.us)[repeat // 2] for name, found in runs.items()}

    async def highest(self, name: str) -> Run:
        """The highest rate that *name* holds, found by going up until it does not, or down until it does."""
        best = await self._try(name, FIRST)
        if best.held:
            while (higher := await self._try(name, best.rate * STEP)).held:
                best = higher
        while not best.held and best.rate > HUNDREDFOLD:
            best = await self._try(name, best.rate / STEP)
        return best

    async def _try(self, name: str, rate: float) -> Run:
        for _ in range(TRIES):
            found = await self.measure(name, rate)
            if found.held:
                break
        return found


def offer(port: int, *, rate: float, number: int, first: int) -> dict[str, Any]:
    """Let another process send *number* calls, and return what it says of the answers."""
    task = {"port": port, "secret": SECRET, "rate": rate, "number": number, "first": first}
    client = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("_webhooks.py")), json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with client:
        hear(client, "ready")
        say(client)
        assert client.stdout is not None
        told: dict[str, Any] = json.loads(client.stdout.readline())
    return told


@contextlib.contextmanager
def receiving(words: Sequence[str], url: str) -> Iterator[tuple[psutil.Process, int]]:
    """A receiver as a process of its own, told to stop at the end."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, *words, str(port)],
        env=os.environ | {"BENCH_URL": url, "BENCH_SECRET": SECRET, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < limit:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError("the receiver did not start")
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        process.wait(timeout=60)


def _cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def costs(usual: Mapping[str, Run], highest: Mapping[str, Run]) -> str:
    """What each run took, as a Markdown table."""
    heads = ("run", "offered/s", "p50 ms", "p99 ms", "process µs", "database µs", "MB", "held")
    named = [(f"{name}, a hundredfold", run) for name, run in usual.items()]
    named += [(f"{name}, the highest rate it holds", run) for name, run in highest.items()]
    rows = [
        (
            name,
            f"{run.rate:.0f}",
            f"{run.p50 * 1000:.1f}",
            f"{run.p99 * 1000:.1f}",
            f"{run.process_us:.0f}",
            f"{run.database_us:.0f}",
            f"{run.megabytes:.0f}",
            _verdict(run),
        )
        for name, run in named
    ]
    return _report._markdown(heads, rows)


def _verdict(run: Run) -> str:
    if run.held:
        return "yes"
    return (
        "no: too slow" if run.good == run.calls else f"no: {run.calls - run.good} of {run.calls} not accepted"
    )


def ratios(usual: Mapping[str, Run], highest: Mapping[str, Run]) -> str:
    """How the receiver stands to its number and to the bare endpoint, as a Markdown table."""
    rows = [
        ("highest rate held", "the hundredfold, 167/s", f"{highest[OURS].rate / HUNDREDFOLD:.1f}"),
        ("highest rate held", f"{BARE}'s", f"{highest[OURS].rate / highest[BARE].rate:.2f}"),
        ("processor time a call at 167/s", f"{BARE}'s", f"{usual[OURS].us / usual[BARE].us:.2f}"),
        (
            "processor time a call at its highest rate",
            f"{BARE}'s",
            f"{highest[OURS].us / highest[BARE].us:.2f}",
        ),
    ]
    return _report._markdown(("what", "against", "ratio"), rows)


def keep(text: str) -> None:
    """Put the run into the page, in the place of the one before."""
    page = _report.PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    _report.PAGE.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}", encoding="utf-8")


def conditions(place: Place, run: Run, seconds: float, repeat: int) -> str:
    """Where the numbers come from, without naming the machine."""
    disk = "a RAM disk" if place.on_ram else "an ordinary disk"
    return (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}; the receiver, PostgreSQL"
        f" (fsync, synchronous_commit and full_page_writes on, its data on {disk}) and the sender share them. Signed"
        f" bodies of {run.body_bytes / 1000:.1f} KB on average, each about another record, for {seconds:.0f} s a run;"
        f" at the hundredfold the median of {repeat} runs. The load of the machine at the end was"
        f" {os.getloadavg()[1]:.1f}."
    )


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    with open_place() as place:
        await _load.prepare(place, "base")
        bench = Bench(place=place, seconds=given.seconds)
        usual = await bench.usual(given.repeat)
        highest = {name: await bench.highest(name) for name in RECEIVERS}
        told = "\n\n".join(
            (
                conditions(place, usual[OURS], given.seconds, given.repeat),
                ratios(usual, highest),
                costs(usual, highest),
            )
        )
        print(f"\n{told}")
        keep(told)


if __name__ == "__main__":
    asyncio.run(main())
