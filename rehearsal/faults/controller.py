"""Faults of the controller, of the people and files around it, and of Prefect."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx

from handlers.errors import ExitCode
from handlers.release.phase import Phase
from rehearsal.commands import runbook
from rehearsal.faults.fault import Fault
from rehearsal.faults.world import World
from rehearsal.hosts.host import RehearsalHost

CLOCK_LIBRARIES = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)
_UNLOCKED = (Phase.PLANNED, Phase.APPROVED)
"""Phases without a lock, in which another person may be the first."""


@asynccontextmanager
async def killed(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Kill the controller as the OOM killer does."""
    del fault, host
    async with world.without_timer():
        _signal_all(world.controllers(), signal.SIGKILL)
        yield


@asynccontextmanager
async def paused(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Suspend the controller, and let it go on later as if no time had passed."""
    del fault, host
    suspended = world.controllers()
    _signal_all(suspended, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal_all(suspended, signal.SIGCONT)


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@asynccontextmanager
async def second_manager(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Let another person start a release and resume this one, at the same time. Both must be refused."""
    del host
    where = ("-e", str(world.target.environment_path), "--json", "--without-prefect")
    reason = ("--yes", "--by", "second-manager", "--reason", "did not know")
    done = await asyncio.gather(
        runbook("release", world.target.revisions["broken"], *where, *reason, variables=world.variables),
        runbook("resume", *where, variables=world.variables),
    )
    if fault.moment.name not in _UNLOCKED:
        for name, command in zip(("release", "resume"), done, strict=True):
            if command.exit_code != ExitCode.REFUSED:
                world.wrong.append(
                    f"`runbook {name}` of a second manager ended with {command.exit_code} instead of "
                    f"{ExitCode.REFUSED:d}: {command.sentence}"
                )
    yield


@asynccontextmanager
async def cancelled(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Ask Prefect to cancel every flow run that has not ended, with the call that its page makes."""
    del fault, host
    unfinished = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}}
    asked = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": True}
    async with httpx.AsyncClient(trust_env=False, timeout=10, base_url=world.prefect_url) as http:
        runs = (await http.post("/flow_runs/filter", json=unfinished)).raise_for_status().json()
        for run in runs:
            (await http.post(f"/flow_runs/{run['id']}/set_state", json=asked)).raise_for_status()
    yield


@asynccontextmanager
async def prefect_killed(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Kill the Prefect server. Nobody starts it again."""
    del fault, host
    _signal_all(world.prefect_servers(), signal.SIGKILL)
    yield


def clock_library() -> Path | None:
    """The library that moves the clock of a process; None where it is not installed."""
    return next((path for pattern in CLOCK_LIBRARIES for path in sorted(Path("/").glob(pattern[1:]))), None)


def clock_variables(library: Path, offset_file: Path) -> dict[str, str]:
    """The variables of processes whose clock is to jump when *offset_file* changes; their monotonic clock stays."""
    offset_file.write_text("+0", encoding="utf-8")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(offset_file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@asynccontextmanager
async def clock_jump(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Let the controller's clock jump forward, and leave it so."""
    del host
    world.clock_file.write_text(f"+{fault.seconds:g}", encoding="utf-8")
    yield


@asynccontextmanager
async def edited(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Remove the last host from the environment file, as an editor saves it: in a single rename."""
    del fault, host
    with _changed(world.target.environment_path) as text:
        hosts, mark, rest = text.rpartition("[[hosts]]\n")
        beside = world.target.environment_path.with_suffix(".new")
        # The tables after the list of hosts begin with a single bracket.
        beside.write_text(hosts + rest[rest.index("\n[") + 1 :] if mark else text, encoding="utf-8")
        beside.replace(world.target.environment_path)
        yield


@asynccontextmanager
async def torn(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Cut the environment file in the middle of a line, as when it is being copied."""
    del fault, host
    with _changed(world.target.environment_path) as text:
        world.target.environment_path.write_text(text[: len(text) // 2], encoding="utf-8")
        yield


@contextmanager
def _changed(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    try:
        yield text
    finally:
        path.write_text(text, encoding="utf-8")
