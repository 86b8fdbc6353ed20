"""Which faults this machine can do, and what has to be prepared for them before the rehearsal starts."""

from __future__ import annotations

from collections.abc import Iterable

from handlers.errors import Refused
from rehearsal.faults.controller import clock_library
from rehearsal.faults.fault import Fault, Kind
from rehearsal.hosts import disk
from rehearsal.hosts.disk import NoDiskError


def impossible() -> frozenset[Kind]:
    """The kinds that a random draw leaves out here."""
    return frozenset(kind for kind in Kind if _missing(kind))


def raise_if_impossible(fault: Fault) -> None:
    """Raise Refused when something is missing for *fault*, with what to install."""
    if missing := _missing(fault.kind):
        raise Refused(f"--fault {fault}: {missing}")


def prepare(faults: Iterable[Fault]) -> None:
    """Give this process file systems of its own where a disk is to be filled. Call it before the first thread."""
    if any(fault.kind is Kind.DISK_FULL for fault in faults):
        try:
            disk.separate()
        except NoDiskError as error:
            raise Refused(f"--fault {Kind.DISK_FULL}: {error}") from error


def _missing(kind: Kind) -> str:
    if kind is Kind.CLOCK_JUMP and clock_library() is None:
        return "libfaketime is missing; install it (Debian: apt-get install faketime)"
    if kind is Kind.DISK_FULL and not disk.is_possible():
        return "this machine allows file systems of our own neither to root nor in a user namespace"
    return ""
