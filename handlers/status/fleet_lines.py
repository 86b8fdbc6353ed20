"""Many hosts on few lines: those in the same state are named together, or counted when there are many. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

NAMED_MAX = 3
"""More hosts in one state are counted instead of named."""


def together(states: Iterable[tuple[str, str]]) -> str:
    """Hosts with their states, those with the same state together: `web-1 switched; 19 hosts: workers stopped`."""
    groups: dict[str, list[str]] = {}
    for host, state in sorted(states, key=lambda each: _natural(each[0])):
        groups.setdefault(state, []).append(host)
    return "; ".join(f"{_who(hosts)} {state}" for state, hosts in groups.items())


def _who(hosts: list[str]) -> str:
    return ", ".join(hosts) if len(hosts) <= NAMED_MAX else f"{len(hosts)} hosts:"


def _natural(name: str) -> list[tuple[int, str]]:
    """web-2 before web-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
