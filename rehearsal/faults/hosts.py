"""Faults of one host, its connection and its units."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rehearsal import processes
from rehearsal.faults.fault import Fault
from rehearsal.faults.world import World
from rehearsal.hosts import disk
from rehearsal.hosts.host import UNITS, WEB_UNIT, WORKERS_UNIT, RehearsalHost
from rehearsal.hosts.network import Cable
from rehearsal.hosts.supervisor import signal_group
from rehearsal.hosts.units import Unit
from rehearsal.running import in_thread

_GONE_SECONDS = 10.0
_NOISY = """echo 'Welcome to this host. Unauthorised use is prohibited.'
echo 'You have mail.' >&2
printf 'Project: '; read -r project
"""


@asynccontextmanager
async def away(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Cut the cable between the controller and the host. What runs on the host goes on."""
    del fault
    async with _cut(world, host, Cable.HANGS):
        yield


@asynccontextmanager
async def refuses(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Reset the connections to the host and refuse new ones."""
    del fault
    async with _cut(world, host, Cable.REFUSES):
        yield


@asynccontextmanager
async def answers_lost(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Lose what the host answers: it does what it is told, and nobody hears of it."""
    del fault
    async with _cut(world, host, Cable.LOSES_ANSWERS):
        yield


@asynccontextmanager
async def login_refused(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Take our key off the host, and reset its connections: each one has to log in again."""
    del fault
    keys = host.door.authorized_keys
    allowed = keys.read_text(encoding="utf-8")
    keys.write_text("", encoding="utf-8")
    try:
        async with _cut(world, host, Cable.REFUSES):
            pass
        yield
    finally:
        keys.write_text(allowed, encoding="utf-8")


@asynccontextmanager
async def _cut(world: World, host: RehearsalHost, state: Cable) -> AsyncIterator[None]:
    network = world.target.network
    assert network is not None, "a target with faults has cables"
    await network.set(host.name, state)
    try:
        yield
    finally:
        await network.set(host.name, Cable.WORKS)


@asynccontextmanager
async def reboot(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Kill everything that runs on the host; at the end its units start by themselves, on what is deployed then."""
    del fault
    async with _cut(world, host, Cable.HANGS):
        await in_thread(lambda: _kill_all(host))
        try:
            yield
        finally:
            await in_thread(lambda: _boot(host))


def _kill_all(host: RehearsalHost) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    server = host.door.process.pid
    while left := set(processes.with_variable("HOME", str(host.folder))) - {server}:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes of {host.name} do not end: {left}")


def _boot(host: RehearsalHost) -> None:
    host.systemctl("reset-failed", *UNITS)
    host.start_units()


@asynccontextmanager
async def disk_full(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Fill the disk of the host."""
    del world, fault
    await in_thread(lambda: disk.fill(host.folder))
    try:
        yield
    finally:
        disk.free(host.folder)


@asynccontextmanager
async def unit_hangs(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Suspend the unit's processes, so that SIGTERM has no effect, and let its start hang."""
    del world
    unit = Unit(host.folder, WEB_UNIT if "activate" in fault.moment.name else WORKERS_UNIT)
    pid = unit.stored().get("pid", 0)
    unit.hang_file.touch()
    if pid:
        signal_group(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        unit.hang_file.unlink(missing_ok=True)
        if pid:
            signal_group(pid, signal.SIGCONT)


@asynccontextmanager
async def noisy_shell(world: World, fault: Fault, host: RehearsalHost) -> AsyncIterator[None]:
    """Let every login print lines to both streams and read a line from stdin."""
    del world, fault
    startup = host.folder / ".bashrc"
    startup.write_text(_NOISY, encoding="utf-8")
    try:
        yield
    finally:
        startup.unlink(missing_ok=True)
