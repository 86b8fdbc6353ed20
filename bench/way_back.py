"""The way back of one host and of twenty, beside the bare shell commands on the same hosts at once, in one run.

    python bench/way_back.py [--hosts 20] [--repeat 3] [--no-keep]

The hosts are a rehearsal's: OpenSSH, git, a service manager and the sample ERP, all on this machine. The bare side is
one `ssh` for each host, all at once: stop the workers, check out, restart, start the workers; then good answers in a
row, with the revision, as the runbook asks for. Prints the tables and keeps them in docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import math
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
STATE = tempfile.TemporaryDirectory(prefix="tds-bench-")
# Before the modules that read it.
os.environ["XDG_STATE_HOME"] = STATE.name

from flows.rollback import undo  # noqa: E402
from handlers.core import Core, open_core  # noqa: E402
from handlers.environment.load import load_environment  # noqa: E402
from handlers.phases import begin  # noqa: E402
from handlers.phases.deploy import deploy_release  # noqa: E402
from handlers.phases.plan import make_plan  # noqa: E402
from handlers.release.phase import Conclusion, Phase, Release, Verdict  # noqa: E402
from rehearsal.hosts.host import DIRECTORY, WEB_UNIT, WORKERS_UNIT, RehearsalHost  # noqa: E402
from rehearsal.target import Target  # noqa: E402
from tasks import ledger  # noqa: E402
from tasks.lock import held  # noqa: E402

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- the last run of bench/way_back.py -->", "<!-- end of the run of bench/way_back.py -->"
HEALTHY_SECONDS = 120.0
BARE, OURS, DEPLOY = "bare shell commands", "runbook", "runbook, its deploy before"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one way of all hosts cost."""

    seconds: float
    machine: float
    """Processor seconds of controller, hosts and database. A host's own work for the ERP is in it."""
    controller: float
    """Processor seconds of this process alone. The bare side's are in its `ssh` processes."""


class Tree:
    """The processor time of this process and all that it started, detached or not: in a control group of its own."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        for parent in (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")):
            if os.access(parent, os.W_OK) and (parent / "cgroup.procs").exists():
                self._folder = parent / f"tds-bench-{os.getpid()}"
                self._folder.mkdir()
                (self._folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
                return

    def seconds(self) -> float:
        """So far; nothing where control groups are not ours to make."""
        if self._folder is None:
            return math.nan
        if (usage := self._folder / "cpuacct.usage").exists():
            return int(usage.read_text(encoding="ascii")) / 1e9
        return int((self._folder / "cpu.stat").read_text(encoding="ascii").split()[1]) / 1e6

    def close(self) -> None:
        """Leave the group, and remove it once its last process has ended."""
        if self._folder is None:
            return
        (self._folder.parent / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        deadline = time.monotonic() + 10
        while self._folder.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            time.sleep(0.1)


TREE = Tree()


def processor_seconds() -> tuple[float, float]:
    """The processor time of everything, and of this process."""
    own = os.times()
    return TREE.seconds(), own.user + own.system


async def costing(work: Awaitable[object]) -> Cost:
    """The cost of *work*."""
    machine, own = processor_seconds()
    began = time.monotonic()
    await work
    seconds = time.monotonic() - began
    machine_after, own_after = processor_seconds()
    return Cost(seconds=seconds, machine=machine_after - machine, controller=own_after - own)


def ssh_words(target: Target, host: RehearsalHost, script: str) -> list[str]:
    """What a person types."""
    secrets = target.folder / "secrets"
    options = {"UserKnownHostsFile": f"{secrets}/known_hosts", "BatchMode": "yes", "IdentitiesOnly": "yes"}
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return [
        *("ssh", "-F", "none", "-i", f"{secrets}/key", "-p", str(host.ssh_port), *words),
        *(f"{host.door.user}@127.0.0.1", script),
    ]


async def by_hand(target: Target, host: RehearsalHost, sha: str) -> None:
    """The commands on one host, then its good answers in a row."""
    script = (
        f"systemctl stop {WORKERS_UNIT} && git -C {DIRECTORY} checkout --quiet --force --detach {sha}"
        f" && systemctl restart {WEB_UNIT} && systemctl start {WORKERS_UNIT}"
    )
    process = await asyncio.create_subprocess_exec(*ssh_words(target, host, script))
    if status := await process.wait():
        raise RuntimeError(f"{host.name}: status {status} of {shlex.quote(script)}")
    probe = load_environment(target.environment_path).probe
    good, deadline = 0, time.monotonic() + HEALTHY_SECONDS
    async with httpx.AsyncClient(trust_env=False, timeout=probe.answer_seconds) as http:
        while good < probe.consecutive:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{host.name} is not healthy")
            try:
                answer = (await http.get(host.health_url)).json()
                runs = answer["revision"] == sha and set(answer["workers"]["revisions"]) == {sha}
                good = good + 1 if runs and answer["database"] == "ok" else 0
            except (httpx.HTTPError, ValueError, KeyError):
                good = 0
            if good < probe.consecutive:
                await asyncio.sleep(probe.interval_seconds if good else 0.1)


async def all_by_hand(target: Target, sha: str) -> None:
    """All hosts at once."""
    await asyncio.gather(*(by_hand(target, host, sha) for host in target.hosts))


@asynccontextmanager
async def deployed(core: Core, target: Target) -> AsyncIterator[tuple[Release, Cost]]:
    """A release whose revision is on every host, about to roll back; and what its deploy cost."""
    plan = await make_plan(core, target.revision)
    run = await begin.record_release(core, plan, requested_by="bench", reason="a benchmark")
    async with held(run) as run:
        for phase in (Phase.APPROVED, Phase.DEPLOYING):
            run = await ledger.enter(run, phase)
        conclusions: list[Conclusion] = []

        async def deploy() -> None:
            conclusions.append(await deploy_release(core, run))

        cost = await costing(deploy())
        if conclusions[0].verdict is not Verdict.PASS:
            raise RuntimeError(conclusions[0].sentence)
        verdict = Conclusion(verdict=Verdict.FAIL, sentence="a benchmark", blames_revision=False)
        run = await ledger.enter(
            await ledger.enter(run, Phase.PROBING, conclusions[0]), Phase.ROLLING_BACK, verdict
        )
        yield run, cost


async def go_back(run: Release) -> None:
    """From the verdict to verified back."""
    ended = await undo(run)
    if ended.phase is not Phase.ROLLED_BACK:
        raise RuntimeError(ended.reason)


async def measure(hosts: int, repeat: int) -> dict[str, Cost]:
    """The medians of both ways back of a target with so many hosts, measured in turns."""
    found: dict[str, list[Cost]] = {BARE: [], OURS: [], DEPLOY: []}
    async with Target.create("treacherous", hosts=hosts) as target:
        environment = load_environment(target.environment_path)
        for _ in range(repeat):
            await all_by_hand(target, target.revision)
            found[BARE].append(await costing(all_by_hand(target, target.revisions["broken"])))
            async with open_core(environment) as core, deployed(core, target) as (run, deploy):
                found[DEPLOY].append(deploy)
                found[OURS].append(await costing(go_back(run)))
            shown = (f"{name} {costs[-1].seconds:.2f} s" for name, costs in found.items())
            print(f"{hosts} hosts: {', '.join(shown)}", file=sys.stderr, flush=True)
    return {name: median(costs) for name, costs in found.items()}


def median(costs: Sequence[Cost]) -> Cost:
    """Each figure by itself."""
    return Cost(
        seconds=statistics.median(cost.seconds for cost in costs),
        machine=statistics.median(cost.machine for cost in costs),
        controller=statistics.median(cost.controller for cost in costs),
    )


def tables(found: dict[int, dict[str, Cost]]) -> str:
    """The ratios, and what they are made of, as Markdown."""
    one, many = found[min(found)], found[max(found)]
    lines = [
        "| way back | hosts | seconds | processor seconds a host | of the controller, a host |",
        "|---|---|---|---|---|",
    ]
    for count, costs in found.items():
        lines += [
            f"| {name} | {count} | {cost.seconds:.2f} | {cost.machine / count:.2f} | {cost.controller / count:.2f} |"
            for name, cost in costs.items()
        ]
    lines += ["", "| ratio | |", "|---|---|"]
    lines += [
        f"| ours to bare, {count} hosts | {costs[OURS].seconds / costs[BARE].seconds:.2f} |"
        for count, costs in found.items()
    ]
    lines += [
        f"| {name}, {max(found)} hosts to {min(found)} | {many[name].seconds / one[name].seconds:.2f} |"
        for name in (BARE, OURS, DEPLOY)
    ]
    return "\n".join(lines)


def keep(told: str) -> None:
    """Put the run into the page, in the place of the one before."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{after}", encoding="utf-8")


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--no-keep", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    found = {hosts: await measure(hosts, given.repeat) for hosts in (1, given.hosts)}
    conditions = (
        f"{os.cpu_count()} cores for all hosts, the database and the controller, {platform.system()}, Python"
        f" {platform.python_version()}; the median of {given.repeat} runs. The load of the machine at the end was"
        f" {os.getloadavg()[1]:.1f}."
    )
    told = f"{conditions}\n\n{tables(found)}"
    print(f"\n{told}")
    if not given.no_keep:
        keep(told)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    finally:
        TREE.close()
