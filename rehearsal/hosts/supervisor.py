"""The process that keeps one unit of a rehearsal host running. Standard library only."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
import time

from rehearsal.hosts.units import Unit


def supervise(unit: Unit) -> None:
    """Keep the unit's process running as its file says, until SIGTERM or the start limit."""
    wake, alarm = os.pipe()
    for end in (wake, alarm):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(alarm)
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ending.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Held before anything else happens, so that `show` reports the unit from its first moment.
    with unit.locked("alive"):
        unit.write(supervisor=os.getpid(), restarts=0, result="success", status=0)
        restarts = 0
        while True:
            try:
                process = _spawn(unit)
            except OSError as error:
                unit.write(active="failed", sub="failed", pid=0, result="resources")
                sys.exit(f"{unit.name}: {error}")
            if restarts == 0:
                print("started", flush=True)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            status = _wait(unit, process, wake, ending)
            result = _result(status, stopping=bool(ending))
            failed = result != "success"
            policy = unit.get("Service", "Restart", "no")
            again = policy == "always" or (policy == "on-failure" and failed)
            if ending or not again:
                where = (
                    {"active": "failed", "sub": "failed"} if failed else {"active": "inactive", "sub": "dead"}
                )
                unit.write(**where, pid=0, result=result, status=abs(status))
                return
            unit.write(active="activating", sub="auto-restart", pid=0, result=result, status=abs(status))
            _pause(wake, ending, unit.seconds("Service", "RestartSec", 0.1))
            if ending:
                unit.write(active="inactive", sub="dead")
                return
            if not unit.may_start():
                return
            restarts += 1
            unit.write(restarts=restarts)


def _spawn(unit: Unit) -> subprocess.Popen[bytes] | None:
    """Make the unit's process; None when the program is not there, which systemd calls status 203."""
    environment = unit.environment()
    with unit.log.open("ab") as log:
        try:
            process = subprocess.Popen(
                shlex.split(unit.get("Service", "ExecStart")),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                cwd=unit.get("Service", "WorkingDirectory") or "/", env=environment,
            )  # fmt: skip
        except OSError as error:
            log.write(f"{unit.name}: {error}\n".encode())
            unit.write(active="active", sub="running", pid=0, since=time.time())
            return None
    unit.write(active="active", sub="running", pid=process.pid, since=time.time())
    return process


def _wait(unit: Unit, process: subprocess.Popen[bytes] | None, wake: int, ending: list[int]) -> int:
    """Wait for the process's own end, or end it with its whole group after a SIGTERM."""
    if process is None:
        return 203
    deadline: float | None = None
    while process.poll() is None:
        if ending and deadline is None:
            deadline = time.monotonic() + unit.seconds("Service", "TimeoutStopSec", 30)
            unit.write(active="deactivating", sub="stop-sigterm")
            signal_group(process.pid, signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            signal_group(process.pid, signal.SIGKILL)
            process.wait()
            return -signal.SIGKILL
        _drain(wake, None if deadline is None else max(0.0, deadline - time.monotonic()))
    # Children must not outlive their unit.
    signal_group(process.pid, signal.SIGKILL)
    return process.returncode


def _result(status: int, *, stopping: bool) -> str:
    if status == 0 or (
        status < 0 and -status in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)
    ):
        return "success"
    if stopping and status == -signal.SIGKILL:
        return "timeout"
    return "signal" if status < 0 else "exit-code"


def _pause(wake: int, ending: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ending and time.monotonic() < deadline:
        _drain(wake, max(0.0, deadline - time.monotonic()))


def _drain(wake: int, timeout: float | None) -> None:
    """Sleep until a signal arrives or the time is up."""
    with contextlib.suppress(InterruptedError):
        if select.select([wake], [], [], timeout)[0]:
            os.read(wake, 4096)


def signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
