"""The faults of a host, and what they are evidence of. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus


class Evidence(str):
    """A fault that is evidence against the revision, unless its database is away."""


class UnitFault(str):
    """A unit that has failed: it does not start by itself."""


class WebUnitFault(UnitFault, Evidence):
    """A web unit that has failed."""


class DatabaseFault(str):
    """A fault of the database, which explains every other."""


def blames_revision(faults: Sequence[str]) -> bool:
    """Whether the faults of a host are evidence against its revision."""
    database_is_away = any(isinstance(fault, DatabaseFault) for fault in faults)
    return not database_is_away and any(isinstance(fault, Evidence) for fault in faults)


def lacks_only_its_database(faults: Sequence[str]) -> bool:
    """Whether a database that is away explains all faults."""
    database = any(isinstance(fault, DatabaseFault) for fault in faults)
    return database and all(
        isinstance(fault, DatabaseFault) or fault.startswith("HTTP 5") for fault in faults
    )


def status_fault(status: int) -> str:
    """The fault of an answer with an HTTP status that is no success."""
    # Another status is more likely a wrong address or a missing permission.
    return Evidence(f"HTTP {status}") if status >= HTTPStatus.INTERNAL_SERVER_ERROR else f"HTTP {status}"


def unit_fault(sentence: str, is_web: bool, failed: bool) -> str:
    """The fault of a unit that is not active. A web unit is evidence; one that has failed does not start by itself."""
    if failed:
        return WebUnitFault(sentence) if is_web else UnitFault(sentence)
    return Evidence(sentence) if is_web else sentence
