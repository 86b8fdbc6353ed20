"""The process that holds a lock: who it is, and whether it has ended. Another machine can only wait for the expiry."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from handlers.release.stored import known_fields

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_STATE, _STARTED = 0, 19
"""The places of two values in /proc/PID/stat, counted behind the name of the command, which may contain spaces."""
_ENDED_STATES = "ZX"
"""A zombie has ended: only its parent has not taken notice."""


@dataclass(frozen=True, kw_only=True)
class Controller:
    """A process by what no other process has: its kernel, its process namespace, its number, and its start.

    Host name and process number are not enough. Containers share host names, and process numbers are used again.
    """

    name: str
    """Host name and process number, for people."""
    boot: str
    """The running kernel. A reboot changes it, and two machines never share it."""
    namespace: str
    """The namespace that *pid* is counted in. Containers on one machine have different ones."""
    pid: int
    started: int
    """Its start in clock ticks since the boot."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None, name: str) -> Self | None:
        """From the lock that *name* holds; None when nothing or another process is stored."""
        try:
            controller = cls(**known_fields(cls, stored or {}))
        except TypeError:
            return None
        return controller if controller.name == name else None

    def as_json(self) -> dict[str, Any]:
        """The JSON for the lock."""
        return asdict(self)

    def has_ended(self) -> bool:
        """Whether the process has certainly ended. False also where this machine cannot tell.

        A suspended process has not ended. It loses the lock when the lock expires.
        """
        if (self.boot, self.namespace) != _here():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # It belongs to another user. Its start can still be read, unless /proc hides it.
        stat = _stat(self.pid)
        return stat is not None and (stat[0] in _ENDED_STATES or stat[1] != self.started)


def this_controller() -> Controller | None:
    """This process; None on a system that does not tell."""
    boot, namespace = _here()
    stat = _stat(os.getpid())
    if not boot or not namespace or stat is None:
        return None
    return Controller(
        name=controller_name(), boot=boot, namespace=namespace, pid=os.getpid(), started=stat[1]
    )


def controller_name() -> str:
    """The name of this process in the lock and in the status view: host name and process number."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _here() -> tuple[str, str]:
    """The kernel and the process namespace of this process; empty where the system does not tell."""
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        namespace = str((_PROC / "self/ns/pid").readlink())
    return boot, namespace


def _stat(pid: int) -> tuple[str, int] | None:
    """The state and the start of a process; None when they cannot be read."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    values = text.rpartition(")")[2].split()
    return values[_STATE], int(values[_STARTED])
